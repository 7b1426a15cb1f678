"""BART as data: Hugging Face's BartModel, BartForConditionalGeneration and
BartForSequenceClassification, weights and config.

The canonical names carry the prefix `model.`; files of a bare BartModel do without it.
"""

from ckpt_convert.architecture import Architecture
from ckpt_convert.config_format import ConfigFormat
from ckpt_convert.huggingface import (
    HUGGING_FACE_FIXED,
    HUGGING_FACE_GENERATION,
    HUGGING_FACE_IGNORED,
    OTHER_HEAD,
)
from ckpt_convert.rules import Rule, WeightTable, linear_rules, norm_rules


def _attention(ours: str, theirs: str) -> tuple[Rule, ...]:
    return (
        *linear_rules(f"{ours}.query", f"{theirs}.q_proj"),
        *linear_rules(f"{ours}.key", f"{theirs}.k_proj"),
        *linear_rules(f"{ours}.value", f"{theirs}.v_proj"),
        *linear_rules(f"{ours}.output", f"{theirs}.out_proj"),
        *norm_rules(f"{ours}_norm", f"{theirs}_layer_norm"),
    )


def _stack(name: str) -> tuple[Rule, ...]:
    """What the encoder and the decoder have alike."""
    ours, theirs = f"backbone.{name}", f"model.{name}"
    our_layer, their_layer = f"{ours}.layers.stacked", f"{theirs}.layers.{{layer}}"
    return (
        Rule(f"{ours}.position.embedding", f"{theirs}.embed_positions.weight"),
        *norm_rules(f"{ours}.embedding_norm", f"{theirs}.layernorm_embedding"),
        *_attention(f"{our_layer}.attention", f"{their_layer}.self_attn"),
        *linear_rules(f"{our_layer}.feed_forward.up", f"{their_layer}.fc1"),
        *linear_rules(f"{our_layer}.feed_forward.down", f"{their_layer}.fc2"),
        *norm_rules(f"{our_layer}.feed_forward_norm", f"{their_layer}.final_layer_norm"),
    )


BACKBONE = (
    Rule("backbone.token.embedding", "model.shared.weight"),
    *_stack("encoder"),
    *_stack("decoder"),
    *_attention(
        "backbone.decoder.layers.stacked.cross_attention",
        "model.decoder.layers.{layer}.encoder_attn",
    ),
)

RENAMES = ((r"^(shared|encoder|decoder)\.", r"model.\1."),)

TIED = tuple(
    (f"model.{stack}.embed_tokens.weight", "model.shared.weight")
    for stack in ("encoder", "decoder")
)

IGNORED = (
    (r"lm_head\.weight|final_logits_bias", "language-modelling head, not used for scores"),
    (r"model\.(encoder|decoder)\.version", "constant"),
)


TABLES = {
    "classification": WeightTable(
        rules=(
            *BACKBONE,
            *linear_rules("head.dense", "classification_head.dense"),
            *linear_rules("head.score", "classification_head.out_proj"),
        ),
        renames=RENAMES,
        ignored=(*IGNORED, (r"score\..+", OTHER_HEAD)),
        may_start_fresh=("head.dense.", "head.score."),
        tied=TIED,
    ),
    "linear": WeightTable(
        rules=(*BACKBONE, *linear_rules("head.score", "score")),
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
        "encoder_layers": "num_layers",
        "decoder_layers": "num_decoder_layers",
        "encoder_attention_heads": "num_heads",
        "encoder_ffn_dim": "intermediate_size",
        "max_position_embeddings": "max_position_embeddings",
    },
    options={
        "dropout": "dropout",
        "attention_dropout": "attention_dropout",
        "activation_dropout": "activation_dropout",
        "init_std": "initializer_range",
        "decoder_start_token_id": "decoder_start_token_id",
    },
    fixed={
        **HUGGING_FACE_FIXED,
        "is_encoder_decoder": (True,),
        "is_decoder": (False,),
        "activation_function": ("gelu",),
        "scale_embedding": (False,),
        "encoder_layerdrop": (0.0,),
        "decoder_layerdrop": (0.0,),
        # The options of older releases, which also served BART's relatives.
        "normalize_before": (False,),
        "normalize_embedding": (True,),
        "add_final_layer_norm": (False,),
        "static_position_embeddings": (False,),
        "extra_pos_embeddings": (2,),
    },
    derived={
        "decoder_attention_heads": "num_heads",
        "decoder_ffn_dim": "intermediate_size",
        "num_hidden_layers": "num_layers",
    },
    # An older name of classifier_dropout; a bias of the language-modelling head.
    ignored=HUGGING_FACE_IGNORED
    | HUGGING_FACE_GENERATION
    | {"classif_dropout", "add_bias_logits", "output_past"},
)

ARCHITECTURE = Architecture(
    TABLES,
    CONFIG,
    {"classification": "BartForSequenceClassification", "linear": "BartModel"},
    template="pair",
    hidden_states="embeddings, layers",
    classifier_dropout=0.0,
)
