"""Llama as data: Hugging Face's LlamaModel, LlamaForCausalLM and LlamaForSequenceClassification,
weights and config.

The canonical names carry the prefix `model.`; files of a bare LlamaModel do without it.
"""

from ckpt_convert.architecture import Architecture
from ckpt_convert.config_format import ConfigFormat
from ckpt_convert.huggingface import HUGGING_FACE_FIXED, HUGGING_FACE_IGNORED
from ckpt_convert.rules import Rule, WeightTable, linear_rules, norm_rules

_THEIR_LAYER = "model.layers.{layer}"
_OUR_LAYER = "backbone.layers.stacked"

BACKBONE = (
    Rule("backbone.embedding.embedding", "model.embed_tokens.weight"),
    *norm_rules(f"{_OUR_LAYER}.attention_norm", f"{_THEIR_LAYER}.input_layernorm"),
    *linear_rules(f"{_OUR_LAYER}.attention.query", f"{_THEIR_LAYER}.self_attn.q_proj"),
    *linear_rules(f"{_OUR_LAYER}.attention.key", f"{_THEIR_LAYER}.self_attn.k_proj"),
    *linear_rules(f"{_OUR_LAYER}.attention.value", f"{_THEIR_LAYER}.self_attn.v_proj"),
    *linear_rules(f"{_OUR_LAYER}.attention.output", f"{_THEIR_LAYER}.self_attn.o_proj"),
    *norm_rules(f"{_OUR_LAYER}.feed_forward_norm", f"{_THEIR_LAYER}.post_attention_layernorm"),
    *linear_rules(f"{_OUR_LAYER}.feed_forward.gate", f"{_THEIR_LAYER}.mlp.gate_proj"),
    *linear_rules(f"{_OUR_LAYER}.feed_forward.up", f"{_THEIR_LAYER}.mlp.up_proj"),
    *linear_rules(f"{_OUR_LAYER}.feed_forward.down", f"{_THEIR_LAYER}.mlp.down_proj"),
    *norm_rules("backbone.final_norm", "model.norm"),
)

RENAMES = ((r"^(embed_tokens|layers|norm)\.", r"model.\1."),)

IGNORED = (
    (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq", "constant"),
    (r"lm_head\.weight", "language-model head, not used for scores"),
)

TABLE = WeightTable(
    rules=(*BACKBONE, *linear_rules("head.score", "score")),
    renames=RENAMES,
    ignored=IGNORED,
    may_start_fresh=("head.score.",),
)
"""Of both heads: the one for classification has no bias."""

_SCALING = {
    "rope_type": "rotary_scaling",
    "factor": "rotary_factor",
    "low_freq_factor": "rotary_low_frequency_factor",
    "high_freq_factor": "rotary_high_frequency_factor",
    "original_max_position_embeddings": "rotary_original_length",
}

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
        "num_key_value_heads": "num_key_heads",
        "head_dim": "head_size",
        # Before transformers 5, with `rope_scaling`; since then in `rope_parameters`.
        "rope_theta": "rotary_base",
        "attention_dropout": "attention_dropout",
        "rms_norm_eps": "norm_epsilon",
        "initializer_range": "initializer_range",
    },
    fixed={
        **HUGGING_FACE_FIXED,
        "hidden_act": ("silu",),
        "attention_bias": (False,),
        "mlp_bias": (False,),
    },
    # Splits a product into several with the same sum.
    ignored=HUGGING_FACE_IGNORED | {"pretraining_tp"},
    sections={
        "rope_scaling": ConfigFormat(sizes={}, options=_SCALING),
        "rope_parameters": ConfigFormat(
            sizes={}, options={"rope_theta": "rotary_base", **_SCALING}
        ),
    },
)

ARCHITECTURE = Architecture(
    {"classification": TABLE, "linear": TABLE},
    CONFIG,
    {"classification": "LlamaForSequenceClassification", "linear": "LlamaModel"},
    template="paper",
    hidden_states="embeddings, inner layers, final norm",
)
