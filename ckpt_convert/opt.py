"""OPT as data: Hugging Face's OPTModel, OPTForCausalLM and OPTForSequenceClassification, weights
and config.

The canonical names carry the prefix `model.decoder.`; files of a bare OPTModel begin with
`decoder.`, some with neither.
"""

from ckpt_convert.architecture import Architecture
from ckpt_convert.config_format import ConfigFormat
from ckpt_convert.huggingface import HUGGING_FACE_FIXED, HUGGING_FACE_IGNORED
from ckpt_convert.rules import TRANSPOSE, Rule, WeightTable, linear_rules, norm_rules

_THEIR_LAYER = "model.decoder.layers.{layer}"
_OUR_LAYER = "backbone.layers.stacked"

BACKBONE = (
    Rule("backbone.token.embedding", "model.decoder.embed_tokens.weight"),
    Rule("backbone.position.embedding", "model.decoder.embed_positions.weight"),
    Rule("backbone.project_in.kernel", "model.decoder.project_in.weight", TRANSPOSE),
    *norm_rules(f"{_OUR_LAYER}.attention_norm", f"{_THEIR_LAYER}.self_attn_layer_norm"),
    *linear_rules(f"{_OUR_LAYER}.attention.query", f"{_THEIR_LAYER}.self_attn.q_proj"),
    *linear_rules(f"{_OUR_LAYER}.attention.key", f"{_THEIR_LAYER}.self_attn.k_proj"),
    *linear_rules(f"{_OUR_LAYER}.attention.value", f"{_THEIR_LAYER}.self_attn.v_proj"),
    *linear_rules(f"{_OUR_LAYER}.attention.output", f"{_THEIR_LAYER}.self_attn.out_proj"),
    *norm_rules(f"{_OUR_LAYER}.feed_forward_norm", f"{_THEIR_LAYER}.final_layer_norm"),
    *linear_rules(f"{_OUR_LAYER}.feed_forward.up", f"{_THEIR_LAYER}.fc1"),
    *linear_rules(f"{_OUR_LAYER}.feed_forward.down", f"{_THEIR_LAYER}.fc2"),
    *norm_rules("backbone.final_norm", "model.decoder.final_layer_norm"),
    Rule("backbone.project_out.kernel", "model.decoder.project_out.weight", TRANSPOSE),
)

_PARTS = "embed_tokens|embed_positions|layers|final_layer_norm|project_in|project_out"
RENAMES = (
    (r"^decoder\.", "model.decoder."),
    (rf"^({_PARTS})\.", r"model.decoder.\1."),
)

TIED = (("lm_head.weight", "model.decoder.embed_tokens.weight"),)

TABLE = WeightTable(
    rules=(*BACKBONE, *linear_rules("head.score", "score")),
    renames=RENAMES,
    tied=TIED,
    may_start_fresh=("head.score.",),
)
"""Of both heads: the one for classification has no bias."""

CONFIG = ConfigFormat(
    sizes={
        "vocab_size": "vocab_size",
        "hidden_size": "hidden_size",
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
        "ffn_dim": "intermediate_size",
        "max_position_embeddings": "max_position_embeddings",
    },
    options={
        "word_embed_proj_dim": "embedding_size",
        "do_layer_norm_before": "normalises_first",
        "enable_bias": "use_bias",
        "dropout": "hidden_dropout",
        "attention_dropout": "attention_dropout",
        "init_std": "initializer_range",
    },
    fixed={
        **HUGGING_FACE_FIXED,
        "activation_function": ("relu",),
        "layer_norm_elementwise_affine": (True,),
        "_remove_final_layer_norm": (False,),
        "layerdrop": (0.0,),
        "tie_word_embeddings": (True,),
    },
    # What a prompt for generation starts with, and a rate that transformers never read.
    ignored=HUGGING_FACE_IGNORED - {"tie_word_embeddings"} | {"prefix", "activation_dropout"},
)

ARCHITECTURE = Architecture(
    {"classification": TABLE, "linear": TABLE},
    CONFIG,
    {"classification": "OPTForSequenceClassification", "linear": "OPTModel"},
    template="paper",
    hidden_states="embeddings, inner layers, final norm",
)
