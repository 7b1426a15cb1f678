"""T5 as data: Hugging Face's T5Model, T5ForConditionalGeneration and T5ForSequenceClassification,
weights and config.

The canonical names carry the prefix `transformer.`, as the classifier's do; all others do without.
"""

from ckpt_convert.architecture import Architecture
from ckpt_convert.config_format import ConfigFormat
from ckpt_convert.huggingface import (
    HUGGING_FACE_FIXED,
    HUGGING_FACE_GENERATION,
    HUGGING_FACE_IGNORED,
    OTHER_HEAD,
)
from ckpt_convert.rules import TRANSPOSE, Rule, WeightTable


def _linear(ours: str, theirs: str) -> Rule:
    return Rule(f"{ours}.kernel", f"{theirs}.weight", TRANSPOSE)


def _attention(ours: str, theirs: str) -> tuple[Rule, ...]:
    parts = {"query": "q", "key": "k", "value": "v", "output": "o"}
    return tuple(_linear(f"{ours}.{our}", f"{theirs}.{their}") for our, their in parts.items())


def _stack(name: str, *, feed_forward: int) -> tuple[Rule, ...]:
    """The encoder or the decoder; `feed_forward` is the place of that part among a block's."""
    ours, theirs = f"backbone.{name}", f"transformer.{name}"
    our_layer, their_layer = f"{ours}.layers.stacked", f"{theirs}.block.{{layer}}.layer"
    part = f"{their_layer}.{feed_forward}"
    return (
        Rule(
            f"{ours}.position_bias.table.embedding",
            f"{theirs}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        ),
        Rule(f"{our_layer}.attention_norm.weight", f"{their_layer}.0.layer_norm.weight"),
        *_attention(f"{our_layer}.attention", f"{their_layer}.0.SelfAttention"),
        Rule(f"{our_layer}.feed_forward_norm.weight", f"{part}.layer_norm.weight"),
        _linear(f"{our_layer}.feed_forward.up", f"{part}.DenseReluDense.wi"),
        _linear(f"{our_layer}.feed_forward.down", f"{part}.DenseReluDense.wo"),
        _linear(f"{our_layer}.gated_feed_forward.gate", f"{part}.DenseReluDense.wi_0"),
        _linear(f"{our_layer}.gated_feed_forward.up", f"{part}.DenseReluDense.wi_1"),
        _linear(f"{our_layer}.gated_feed_forward.down", f"{part}.DenseReluDense.wo"),
        Rule(f"{ours}.norm.weight", f"{theirs}.final_layer_norm.weight"),
    )


_OUR_LAYER = "backbone.decoder.layers.stacked"
_THEIR_LAYER = "transformer.decoder.block.{layer}.layer"

BACKBONE = (
    Rule("backbone.token.embedding", "transformer.shared.weight"),
    *_stack("encoder", feed_forward=1),
    *_stack("decoder", feed_forward=2),
    Rule(f"{_OUR_LAYER}.cross_attention_norm.weight", f"{_THEIR_LAYER}.1.layer_norm.weight"),
    *_attention(f"{_OUR_LAYER}.cross_attention", f"{_THEIR_LAYER}.1.EncDecAttention"),
)

RENAMES = ((r"^(shared|encoder|decoder)\.", r"transformer.\1."),)

TIED = (
    ("transformer.encoder.embed_tokens.weight", "transformer.shared.weight"),
    ("transformer.decoder.embed_tokens.weight", "transformer.shared.weight"),
)

IGNORED = (
    (r"lm_head\.weight", "language-modelling head, not used for scores"),
    # Left in the first releases by mistake; no version of transformers reads it.
    (
        r"transformer\.decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",
        "attention to the encoder has no position bias",
    ),
)


def _head(ours: str, theirs: str) -> tuple[Rule, Rule]:
    return _linear(ours, theirs), Rule(f"{ours}.bias", f"{theirs}.bias")


TABLES = {
    "classification": WeightTable(
        rules=(
            *BACKBONE,
            *_head("head.dense", "classification_head.dense"),
            *_head("head.score", "classification_head.out_proj"),
        ),
        renames=RENAMES,
        ignored=(*IGNORED, (r"score\..+", OTHER_HEAD)),
        may_start_fresh=("head.dense.", "head.score."),
        tied=TIED,
    ),
    "linear": WeightTable(
        rules=(*BACKBONE, *_head("head.score", "score")),
        renames=RENAMES,
        ignored=(*IGNORED, (r"classification_head\..+", OTHER_HEAD)),
        may_start_fresh=("head.score.",),
        tied=TIED,
    ),
}
"""Name of the head -> table."""

CONFIG = ConfigFormat(
    sizes={
        "vocab_size": "vocab_size",
        "d_model": "hidden_size",
        "num_layers": "num_layers",
        "num_heads": "num_heads",
        "d_kv": "head_size",
        "d_ff": "intermediate_size",
    },
    options={
        "num_decoder_layers": "num_decoder_layers",
        "feed_forward_proj": "feed_forward",
        "relative_attention_num_buckets": "num_buckets",
        "relative_attention_max_distance": "max_distance",
        "dropout_rate": "dropout",
        "layer_norm_epsilon": "layer_norm_epsilon",
        "decoder_start_token_id": "decoder_start_token_id",
    },
    fixed={**HUGGING_FACE_FIXED, "is_encoder_decoder": (True,), "is_decoder": (False,)},
    derived={"is_gated_act": "is_gated", "dense_act_fn": "activation"},
    # The length of pretraining, which limits nothing; scale of random starts, for tests alone;
    # a scale of the language-modelling head's input; an output of TensorFlow's class.
    ignored=HUGGING_FACE_IGNORED
    | HUGGING_FACE_GENERATION
    | {"n_positions", "initializer_factor", "scale_decoder_outputs", "output_past"},
)

_ENCODER_ALONE = (
    "holds an encoder alone, and a T5 reranker scores what the decoder yields; "
    "use the T5 model that it was taken from"
)

ARCHITECTURE = Architecture(
    TABLES,
    CONFIG,
    {"classification": "T5ForSequenceClassification", "linear": "T5Model"},
    template="pair",
    hidden_states="embeddings, inner layers, final norm",
    classifier_dropout=0.0,
    refused={"T5EncoderModel": _ENCODER_ALONE, "T5ForTokenClassification": _ENCODER_ALONE},
)
