"""BERT as data: Hugging Face's BertModel and BertForSequenceClassification, weights and config.

The canonical names carry the prefix `bert.`; files of a bare BertModel do without it, and files
from before 2020 call a LayerNorm's weight and bias gamma and beta.
"""

from ckpt_convert.config_format import ConfigFormat
from ckpt_convert.huggingface import HUGGING_FACE_FIXED, HUGGING_FACE_IGNORED
from ckpt_convert.rules import TRANSPOSE, Rule, WeightTable

_THEIR_LAYER = "bert.encoder.layer.{layer}"
_OUR_LAYER = "backbone.layers.stacked"


def _linear(ours: str, theirs: str) -> tuple[Rule, Rule]:
    return Rule(f"{ours}.kernel", f"{theirs}.weight", TRANSPOSE), Rule(
        f"{ours}.bias", f"{theirs}.bias"
    )


def _norm(ours: str, theirs: str) -> tuple[Rule, Rule]:
    return Rule(f"{ours}.weight", f"{theirs}.weight"), Rule(f"{ours}.bias", f"{theirs}.bias")


BACKBONE = (
    Rule("backbone.embeddings.token.embedding", "bert.embeddings.word_embeddings.weight"),
    Rule("backbone.embeddings.position.embedding", "bert.embeddings.position_embeddings.weight"),
    Rule(
        "backbone.embeddings.token_type.embedding", "bert.embeddings.token_type_embeddings.weight"
    ),
    *_norm("backbone.embeddings.norm", "bert.embeddings.LayerNorm"),
    *_linear(f"{_OUR_LAYER}.attention.query", f"{_THEIR_LAYER}.attention.self.query"),
    *_linear(f"{_OUR_LAYER}.attention.key", f"{_THEIR_LAYER}.attention.self.key"),
    *_linear(f"{_OUR_LAYER}.attention.value", f"{_THEIR_LAYER}.attention.self.value"),
    *_linear(f"{_OUR_LAYER}.attention.output", f"{_THEIR_LAYER}.attention.output.dense"),
    *_norm(f"{_OUR_LAYER}.attention_norm", f"{_THEIR_LAYER}.attention.output.LayerNorm"),
    *_linear(f"{_OUR_LAYER}.feed_forward.up", f"{_THEIR_LAYER}.intermediate.dense"),
    *_linear(f"{_OUR_LAYER}.feed_forward.down", f"{_THEIR_LAYER}.output.dense"),
    *_norm(f"{_OUR_LAYER}.feed_forward_norm", f"{_THEIR_LAYER}.output.LayerNorm"),
)

RENAMES = (
    (r"^(embeddings|encoder|pooler)\.", r"bert.\1."),
    (r"\.LayerNorm\.gamma$", ".LayerNorm.weight"),
    (r"\.LayerNorm\.beta$", ".LayerNorm.bias"),
)

IGNORED = (
    (r"bert\.embeddings\.(position|token_type)_ids", "constant"),
    (r"cls\.(predictions|seq_relationship)\..+", "pretraining head, not used for scores"),
)

_POOLER = r"bert\.pooler\..+"
_CLASSIFIER = r"classifier\..+"
_SCORE = r"score\..+"
_OTHER_HEAD = "head of another kind than the one asked for"

TABLES = {
    "classification": WeightTable(
        rules=(
            *BACKBONE,
            *_linear("head.pooler", "bert.pooler.dense"),
            *_linear("head.score", "classifier"),
        ),
        renames=RENAMES,
        ignored=(*IGNORED, (_SCORE, _OTHER_HEAD)),
        may_start_fresh=("head.pooler.", "head.score."),
    ),
    "linear": WeightTable(
        rules=(*BACKBONE, *_linear("head.score", "score")),
        renames=RENAMES,
        ignored=(*IGNORED, (_POOLER, _OTHER_HEAD), (_CLASSIFIER, _OTHER_HEAD)),
        may_start_fresh=("head.score.",),
    ),
}
"""Name of the head -> table."""

CONFIG = ConfigFormat(
    sizes={
        "vocab_size": "vocab_size",
        "hidden_size": "hidden_size",
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
        "intermediate_size": "intermediate_size",
        "max_position_embeddings": "max_position_embeddings",
        "type_vocab_size": "type_vocab_size",
    },
    options={
        "hidden_dropout_prob": "hidden_dropout",
        "attention_probs_dropout_prob": "attention_dropout",
        "layer_norm_eps": "layer_norm_epsilon",
        "initializer_range": "initializer_range",
    },
    fixed={
        **HUGGING_FACE_FIXED,
        "hidden_act": ("gelu",),
        "position_embedding_type": ("absolute",),
        "is_decoder": (False,),
        "add_cross_attention": (False,),
    },
    # Google's multilingual releases carry settings of a TensorFlow pooler that PyTorch never read.
    ignored=HUGGING_FACE_IGNORED
    | {"directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers"}
    | {"pooler_size_per_head", "pooler_type"},
)
