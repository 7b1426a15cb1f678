"""Mamba-1 as data: Hugging Face's MambaModel and MambaForCausalLM, and state-spaces' own files.

The canonical names are MambaModel's, without prefix. MambaForCausalLM and state-spaces put
`backbone.` in front; state-spaces calls the token table `embedding`. All three keep the language
model's output tied to the token table, so an `lm_head` holds nothing new.
"""

from ckpt_convert.config_format import ConfigFormat
from ckpt_convert.huggingface import HUGGING_FACE_FIXED, HUGGING_FACE_IGNORED
from ckpt_convert.rules import SQUEEZE_CONV, TRANSPOSE, Rule, WeightTable

_THEIR_LAYER = "layers.{layer}"
_OUR_LAYER = "backbone.layers.stacked"

BACKBONE = (
    Rule("backbone.embedding.embedding", "embeddings.weight"),
    Rule(f"{_OUR_LAYER}.norm.weight", f"{_THEIR_LAYER}.norm.weight"),
    Rule(f"{_OUR_LAYER}.mixer.in_proj.kernel", f"{_THEIR_LAYER}.mixer.in_proj.weight", TRANSPOSE),
    Rule(f"{_OUR_LAYER}.mixer.in_proj.bias", f"{_THEIR_LAYER}.mixer.in_proj.bias"),
    Rule(f"{_OUR_LAYER}.mixer.conv_weight", f"{_THEIR_LAYER}.mixer.conv1d.weight", SQUEEZE_CONV),
    Rule(f"{_OUR_LAYER}.mixer.conv_bias", f"{_THEIR_LAYER}.mixer.conv1d.bias"),
    Rule(f"{_OUR_LAYER}.mixer.x_proj.kernel", f"{_THEIR_LAYER}.mixer.x_proj.weight", TRANSPOSE),
    Rule(f"{_OUR_LAYER}.mixer.dt_proj.kernel", f"{_THEIR_LAYER}.mixer.dt_proj.weight", TRANSPOSE),
    Rule(f"{_OUR_LAYER}.mixer.dt_proj.bias", f"{_THEIR_LAYER}.mixer.dt_proj.bias"),
    Rule(f"{_OUR_LAYER}.mixer.A_log", f"{_THEIR_LAYER}.mixer.A_log"),
    Rule(f"{_OUR_LAYER}.mixer.D", f"{_THEIR_LAYER}.mixer.D"),
    Rule(f"{_OUR_LAYER}.mixer.out_proj.kernel", f"{_THEIR_LAYER}.mixer.out_proj.weight", TRANSPOSE),
    Rule(f"{_OUR_LAYER}.mixer.out_proj.bias", f"{_THEIR_LAYER}.mixer.out_proj.bias"),
    Rule("backbone.final_norm.weight", "norm_f.weight"),
)

TABLES = {
    "linear": WeightTable(
        rules=(
            *BACKBONE,
            Rule("head.score.kernel", "score.weight", TRANSPOSE),
            Rule("head.score.bias", "score.bias"),
        ),
        renames=((r"^backbone\.", ""), (r"^embedding\.weight$", "embeddings.weight")),
        ignored=((r"lm_head\.weight", "language-model head, not used for scores"),),
        may_start_fresh=("head.score.",),
    ),
}
"""Name of the head -> table."""

CONFIG = ConfigFormat(
    sizes={
        "vocab_size": "vocab_size",
        "hidden_size": "hidden_size",
        "num_hidden_layers": "num_layers",
    },
    options={
        "state_size": "state_size",
        "conv_kernel": "conv_width",
        "expand": "expand",
        "time_step_rank": "time_step_rank",
        "use_bias": "use_bias",
        "use_conv_bias": "use_conv_bias",
        "residual_in_fp32": "residual_in_float32",
        "layer_norm_epsilon": "norm_epsilon",
        "initializer_range": "initializer_range",
        "rescale_prenorm_residual": "rescale_prenorm_residual",
        "time_step_min": "time_step_min",
        "time_step_max": "time_step_max",
        "time_step_floor": "time_step_floor",
    },
    fixed={**HUGGING_FACE_FIXED, "hidden_act": ("silu",)},
    derived={"intermediate_size": "inner_size"},
    word_for_none="auto",
    # Only for random starts, for speed, or left over from the original configuration: the sizes
    # among these are wrong in some published folders, and transformers does not read them either.
    ignored=HUGGING_FACE_IGNORED
    | {"time_step_scale", "time_step_init_scheme", "use_mambapy", "use_associative_scan"}
    | {"fused_add_norm", "pad_vocab_size_multiple", "d_model", "d_inner", "n_layer", "ssm_cfg"}
    | {"rms_norm"},
)

_MIXER = ConfigFormat(
    sizes={},
    options={
        "d_state": "state_size",
        "d_conv": "conv_width",
        "expand": "expand",
        "dt_rank": "time_step_rank",
        "bias": "use_bias",
        "conv_bias": "use_conv_bias",
        "dt_min": "time_step_min",
        "dt_max": "time_step_max",
        "dt_init_floor": "time_step_floor",
    },
    fixed={"layer": ("Mamba1",)},
    word_for_none="auto",
    ignored=frozenset({"dt_init", "dt_scale", "use_fast_path"}),
)

STATE_SPACES_CONFIG = ConfigFormat(
    sizes={"d_model": "hidden_size", "n_layer": "num_layers", "vocab_size": "vocab_size"},
    options={"residual_in_fp32": "residual_in_float32", "norm_epsilon": "norm_epsilon"},
    fixed={
        "rms_norm": (True,),
        "d_intermediate": (0,),
        "attn_layer_idx": ([],),
        "attn_cfg": ({},),
    },
    ignored=frozenset({"fused_add_norm", "pad_vocab_size_multiple", "tie_embeddings"}),
    sections={"ssm_cfg": _MIXER},
)
