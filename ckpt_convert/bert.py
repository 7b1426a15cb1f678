"""BERT, RoBERTa, XLM-RoBERTa and ELECTRA as data: transformers' classes, weights and config.

The canonical names carry the model's prefix, say `bert.`; files of a bare model do without it, and
files from before 2020 call a LayerNorm's weight and bias gamma and beta.
"""

from dataclasses import replace

from ckpt_convert.architecture import Architecture
from ckpt_convert.config_format import ConfigFormat
from ckpt_convert.huggingface import HUGGING_FACE_FIXED, HUGGING_FACE_IGNORED, OTHER_HEAD
from ckpt_convert.rules import Rule, WeightTable, linear_rules, norm_rules

_OUR_LAYER = "backbone.layers.stacked"
_PRETRAINING = "pretraining head, not used for scores"


def _backbone(prefix: str) -> tuple[Rule, ...]:
    embeddings, layer = f"{prefix}.embeddings", f"{prefix}.encoder.layer.{{layer}}"
    return (
        Rule("backbone.embeddings.token.embedding", f"{embeddings}.word_embeddings.weight"),
        Rule("backbone.embeddings.position.embedding", f"{embeddings}.position_embeddings.weight"),
        Rule(
            "backbone.embeddings.token_type.embedding", f"{embeddings}.token_type_embeddings.weight"
        ),
        *norm_rules("backbone.embeddings.norm", f"{embeddings}.LayerNorm"),
        *linear_rules("backbone.projection", f"{prefix}.embeddings_project"),
        *linear_rules(f"{_OUR_LAYER}.attention.query", f"{layer}.attention.self.query"),
        *linear_rules(f"{_OUR_LAYER}.attention.key", f"{layer}.attention.self.key"),
        *linear_rules(f"{_OUR_LAYER}.attention.value", f"{layer}.attention.self.value"),
        *linear_rules(f"{_OUR_LAYER}.attention.output", f"{layer}.attention.output.dense"),
        *norm_rules(f"{_OUR_LAYER}.attention_norm", f"{layer}.attention.output.LayerNorm"),
        *linear_rules(f"{_OUR_LAYER}.feed_forward.up", f"{layer}.intermediate.dense"),
        *linear_rules(f"{_OUR_LAYER}.feed_forward.down", f"{layer}.output.dense"),
        *norm_rules(f"{_OUR_LAYER}.feed_forward_norm", f"{layer}.output.LayerNorm"),
    )


def _tables(
    prefix: str, *, dense: str, score: str, pretraining: tuple[str, ...]
) -> dict[str, WeightTable]:
    """Name of the head -> table.

    Args:
        prefix: what the backbone's names start with.
        dense, score: names of the classification head's two layers.
        pretraining: patterns of the heads that the model was pretrained with.
    """
    pooler = f"{prefix}.pooler"
    buffers = rf"{prefix}\.embeddings\.(position|token_type)_ids"
    ignored = (
        (buffers, "constant"),
        *((pattern, _PRETRAINING) for pattern in pretraining),
    )
    linear = WeightTable(
        rules=(*_backbone(prefix), *linear_rules("head.score", "score")),
        renames=(
            (r"^(embeddings|embeddings_project|encoder|pooler)\.", rf"{prefix}.\1."),
            (r"\.LayerNorm\.gamma$", ".LayerNorm.weight"),
            (r"\.LayerNorm\.beta$", ".LayerNorm.bias"),
        ),
        ignored=(*ignored, (rf"{pooler}\..+", OTHER_HEAD), (r"classifier\..+", OTHER_HEAD)),
        may_start_fresh=("head.score.",),
    )
    classification = replace(
        linear,
        rules=(
            *_backbone(prefix),
            *linear_rules("head.dense", dense),
            *linear_rules("head.score", score),
        ),
        ignored=(
            *ignored,
            (r"score\..+", OTHER_HEAD),
            *(() if dense.startswith(pooler) else ((rf"{pooler}\..+", OTHER_HEAD),)),
        ),
        may_start_fresh=("head.dense.", "head.score."),
    )
    return {"classification": classification, "linear": linear}


TABLES = _tables(
    "bert",
    dense="bert.pooler.dense",
    score="classifier",
    pretraining=(r"cls\.(predictions|seq_relationship)\..+",),
)
ROBERTA_TABLES = _tables(
    "roberta",
    dense="classifier.dense",
    score="classifier.out_proj",
    pretraining=(r"lm_head\..+",),
)
ELECTRA_TABLES = _tables(
    "electra",
    dense="classifier.dense",
    score="classifier.out_proj",
    # The discriminator's head, and the two of a generator.
    pretraining=(r"(discriminator_predictions|generator_predictions|generator_lm_head)\..+",),
)

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
ROBERTA_CONFIG = replace(
    CONFIG,
    # Here, and only here, the pad token's id says where positions start.
    options={**CONFIG.options, "pad_token_id": "pad_token_id"},
    # XLM-RoBERTa's releases say that a forward pass also returned a cache.
    ignored=CONFIG.ignored - {"pad_token_id"} | {"output_past"},
)
ELECTRA_CONFIG = replace(
    CONFIG,
    sizes={**CONFIG.sizes, "embedding_size": "embedding_size"},
    # Settings of the multiple-choice class.
    ignored=CONFIG.ignored
    | {"summary_activation", "summary_last_dropout", "summary_type", "summary_use_proj"},
)

ARCHITECTURE = Architecture(
    TABLES,
    CONFIG,
    {"classification": "BertForSequenceClassification", "linear": "BertModel"},
    template="pair",
    hidden_states="embeddings, layers",
    classifier_dropout="hidden_dropout",
)
ROBERTA = replace(
    ARCHITECTURE,
    tables=ROBERTA_TABLES,
    config=ROBERTA_CONFIG,
    classes={"classification": "RobertaForSequenceClassification", "linear": "RobertaModel"},
)
XLM_ROBERTA = replace(
    ROBERTA,
    classes={"classification": "XLMRobertaForSequenceClassification", "linear": "XLMRobertaModel"},
)
ELECTRA = replace(
    ARCHITECTURE,
    tables=ELECTRA_TABLES,
    config=ELECTRA_CONFIG,
    classes={"classification": "ElectraForSequenceClassification", "linear": "ElectraModel"},
)
