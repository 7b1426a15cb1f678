"""ModernBERT as data: Hugging Face's ModernBertModel and its classifier, weights and config.

The canonical names carry the prefix `model.`; files of a bare ModernBertModel do without it.
"""

from ckpt_convert.architecture import Architecture
from ckpt_convert.config_format import ConfigFormat
from ckpt_convert.huggingface import HUGGING_FACE_FIXED, HUGGING_FACE_IGNORED, OTHER_HEAD
from ckpt_convert.rules import TRANSPOSE, Rule, WeightTable

_THEIR_LAYER = "model.layers.{layer}"
_OUR_LAYER = "backbone.layers.stacked"

BACKBONE = (
    Rule("backbone.embedding.embedding", "model.embeddings.tok_embeddings.weight"),
    Rule("backbone.embedding_norm.weight", "model.embeddings.norm.weight"),
    Rule("backbone.attention_norms", f"{_THEIR_LAYER}.attn_norm.weight", first_layer=1),
    Rule(f"{_OUR_LAYER}.attention.qkv.kernel", f"{_THEIR_LAYER}.attn.Wqkv.weight", TRANSPOSE),
    Rule(f"{_OUR_LAYER}.attention.output.kernel", f"{_THEIR_LAYER}.attn.Wo.weight", TRANSPOSE),
    Rule(f"{_OUR_LAYER}.feed_forward_norm.weight", f"{_THEIR_LAYER}.mlp_norm.weight"),
    Rule(
        f"{_OUR_LAYER}.feed_forward.gate_and_up.kernel", f"{_THEIR_LAYER}.mlp.Wi.weight", TRANSPOSE
    ),
    Rule(f"{_OUR_LAYER}.feed_forward.down.kernel", f"{_THEIR_LAYER}.mlp.Wo.weight", TRANSPOSE),
    Rule("backbone.final_norm.weight", "model.final_norm.weight"),
)

RENAMES = ((r"^(embeddings|layers|final_norm)\.", r"model.\1."),)

_LANGUAGE_MODEL = (r"decoder\.(weight|bias)", "language-model head, not used for scores")

TABLES = {
    # The language model's `head` is this class's too, and a classifier that starts from one has it.
    "classification": WeightTable(
        rules=(
            *BACKBONE,
            Rule("head.dense.kernel", "head.dense.weight", TRANSPOSE),
            Rule("head.norm.weight", "head.norm.weight"),
            Rule("head.score.kernel", "classifier.weight", TRANSPOSE),
            Rule("head.score.bias", "classifier.bias"),
        ),
        renames=RENAMES,
        ignored=(_LANGUAGE_MODEL, (r"score\..+", OTHER_HEAD)),
        may_start_fresh=("head.dense.", "head.norm.", "head.score."),
    ),
    "linear": WeightTable(
        rules=(
            *BACKBONE,
            Rule("head.score.kernel", "score.weight", TRANSPOSE),
            Rule("head.score.bias", "score.bias"),
        ),
        renames=RENAMES,
        ignored=(_LANGUAGE_MODEL, (r"(head|classifier)\..+", OTHER_HEAD)),
        may_start_fresh=("head.score.",),
    ),
}
"""Name of the head -> table."""


def _rotary(base: str) -> ConfigFormat:
    return ConfigFormat(sizes={}, options={"rope_theta": base}, fixed={"rope_type": ("default",)})


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
        "global_attn_every_n_layers": "global_every",
        "local_attention": "local_attention",
        "global_rope_theta": "global_rotary_base",
        "local_rope_theta": "local_rotary_base",
        "classifier_pooling": "classifier_pooling",
        "embedding_dropout": "embedding_dropout",
        "attention_dropout": "attention_dropout",
        "mlp_dropout": "mlp_dropout",
        "norm_eps": "norm_epsilon",
        "initializer_range": "initializer_range",
    },
    fixed={
        **HUGGING_FACE_FIXED,
        "hidden_activation": ("gelu",),
        "classifier_activation": ("gelu",),
        "norm_bias": (False,),
        "attention_bias": (False,),
        "mlp_bias": (False,),
        "classifier_bias": (False,),
        "rope_scaling": (None,),
    },
    derived={"layer_types": "layer_types"},
    # Of the language model alone, for random starts, of kernels, or never read by transformers.
    ignored=HUGGING_FACE_IGNORED
    | {"decoder_bias", "sparse_prediction", "sparse_pred_ignore_index", "repad_logits_with_grad"}
    | {"initializer_cutoff_factor", "deterministic_flash_attn", "reference_compile"}
    | {"layer_norm_eps", "position_embedding_type"},
    # Transformers 5 writes the two bases here.
    sections={
        "rope_parameters": ConfigFormat(
            sizes={},
            sections={
                "full_attention": _rotary("global_rotary_base"),
                "sliding_attention": _rotary("local_rotary_base"),
            },
        )
    },
)

ARCHITECTURE = Architecture(
    TABLES,
    CONFIG,
    {"classification": "ModernBertForSequenceClassification", "linear": "ModernBertModel"},
    template="pair",
    hidden_states="embeddings, inner layers, final norm",
    classifier_dropout=0.0,
)
