"""GPT-NeoX as data: Hugging Face's GPTNeoXModel, GPTNeoXForCausalLM and
GPTNeoXForSequenceClassification, weights and config.

The canonical names carry the prefix `gpt_neox.`; files of a bare GPTNeoXModel do without it.
"""

from ckpt_convert.architecture import Architecture
from ckpt_convert.config_format import ConfigFormat
from ckpt_convert.huggingface import HUGGING_FACE_FIXED, HUGGING_FACE_IGNORED
from ckpt_convert.rules import Rule, WeightTable, linear_rules, norm_rules

_THEIR_LAYER = "gpt_neox.layers.{layer}"
_OUR_LAYER = "backbone.layers.stacked"

BACKBONE = (
    Rule("backbone.embedding.embedding", "gpt_neox.embed_in.weight"),
    *norm_rules(f"{_OUR_LAYER}.attention_norm", f"{_THEIR_LAYER}.input_layernorm"),
    *linear_rules(f"{_OUR_LAYER}.attention.qkv", f"{_THEIR_LAYER}.attention.query_key_value"),
    *linear_rules(f"{_OUR_LAYER}.attention.output", f"{_THEIR_LAYER}.attention.dense"),
    *norm_rules(f"{_OUR_LAYER}.feed_forward_norm", f"{_THEIR_LAYER}.post_attention_layernorm"),
    *linear_rules(f"{_OUR_LAYER}.feed_forward.up", f"{_THEIR_LAYER}.mlp.dense_h_to_4h"),
    *linear_rules(f"{_OUR_LAYER}.feed_forward.down", f"{_THEIR_LAYER}.mlp.dense_4h_to_h"),
    *norm_rules("backbone.final_norm", "gpt_neox.final_layer_norm"),
)

RENAMES = ((r"^(embed_in|layers|final_layer_norm)\.", r"gpt_neox.\1."),)

IGNORED = (
    (r"gpt_neox\.layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)", "constant"),
    # Transformers 5 calls it lm_head.
    (r"(embed_out|lm_head)\.weight", "language-model head, not used for scores"),
)

TABLE = WeightTable(
    rules=(*BACKBONE, *linear_rules("head.score", "score")),
    renames=RENAMES,
    ignored=IGNORED,
    may_start_fresh=("head.score.",),
)
"""Of both heads: the one for classification has no bias."""

CONFIG = ConfigFormat(
    sizes={
        "vocab_size": "vocab_size",
        "hidden_size": "hidden_size",
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
        "intermediate_size": "intermediate_size",
        "max_position_embeddings": "max_position_embeddings",
    },
    options={
        # Before transformers 5; since then in `rope_parameters`.
        "rotary_emb_base": "rotary_base",
        "rotary_pct": "rotary_fraction",
        "use_parallel_residual": "has_parallel_residual",
        "hidden_dropout": "hidden_dropout",
        "attention_dropout": "attention_dropout",
        "layer_norm_eps": "layer_norm_epsilon",
        "initializer_range": "initializer_range",
    },
    fixed={
        **HUGGING_FACE_FIXED,
        "hidden_act": ("gelu",),
        "attention_bias": (True,),
        "rope_scaling": (None,),
    },
    # Every layer is causal whatever it says.
    ignored=HUGGING_FACE_IGNORED | {"is_decoder"},
    sections={
        "rope_parameters": ConfigFormat(
            sizes={},
            options={"rope_theta": "rotary_base", "partial_rotary_factor": "rotary_fraction"},
            fixed={"rope_type": ("default",)},
        )
    },
)

ARCHITECTURE = Architecture(
    {"classification": TABLE, "linear": TABLE},
    CONFIG,
    {"classification": "GPTNeoXForSequenceClassification", "linear": "GPTNeoXModel"},
    template="paper",
    hidden_states="embeddings, inner layers, final norm",
)
