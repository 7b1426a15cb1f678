"""What Mamba and Mamba-2 checkpoints share: names, attributes, and state-spaces' own layout.

The canonical names are MambaModel's (and Mamba2Model's), without prefix. The language-model classes
and state-spaces put `backbone.` in front; state-spaces calls the token table `embedding`. All of
them may keep the language model's output beside it, which scores do not need.
"""

from ckpt_convert.config_format import ConfigFormat
from ckpt_convert.huggingface import HUGGING_FACE_FIXED, HUGGING_FACE_IGNORED
from ckpt_convert.rules import SQUEEZE_CONV, TRANSPOSE, Rule, WeightTable

THEIR_MIXER = "layers.{layer}.mixer"
OUR_MIXER = "backbone.layers.stacked.mixer"

_RULES = (
    Rule("backbone.embedding.embedding", "embeddings.weight"),
    Rule("backbone.layers.stacked.norm.weight", "layers.{layer}.norm.weight"),
    Rule(f"{OUR_MIXER}.in_proj.kernel", f"{THEIR_MIXER}.in_proj.weight", TRANSPOSE),
    Rule(f"{OUR_MIXER}.in_proj.bias", f"{THEIR_MIXER}.in_proj.bias"),
    Rule(f"{OUR_MIXER}.conv_weight", f"{THEIR_MIXER}.conv1d.weight", SQUEEZE_CONV),
    Rule(f"{OUR_MIXER}.conv_bias", f"{THEIR_MIXER}.conv1d.bias"),
    Rule(f"{OUR_MIXER}.A_log", f"{THEIR_MIXER}.A_log"),
    Rule(f"{OUR_MIXER}.D", f"{THEIR_MIXER}.D"),
    Rule(f"{OUR_MIXER}.out_proj.kernel", f"{THEIR_MIXER}.out_proj.weight", TRANSPOSE),
    Rule(f"{OUR_MIXER}.out_proj.bias", f"{THEIR_MIXER}.out_proj.bias"),
    Rule("backbone.final_norm.weight", "norm_f.weight"),
    Rule("head.score.kernel", "score.weight", TRANSPOSE),
    Rule("head.score.bias", "score.bias"),
)


def tables_of(*mixer_rules: Rule) -> dict[str, WeightTable]:
    """Name of the head -> table, with the rules that only this family's mixer has."""
    table = WeightTable(
        rules=(*_RULES, *mixer_rules),
        renames=((r"^backbone\.", ""), (r"^embedding\.weight$", "embeddings.weight")),
        ignored=((r"lm_head\.weight", "language-model head, not used for scores"),),
        may_start_fresh=("head.score.",),
    )
    return {"linear": table}


SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_layers",
}
OPTIONS = {
    "conv_kernel": "conv_width",
    "expand": "expand",
    "use_bias": "use_bias",
    "use_conv_bias": "use_conv_bias",
    "residual_in_fp32": "residual_in_float32",
    "layer_norm_epsilon": "norm_epsilon",
    "initializer_range": "initializer_range",
    "time_step_min": "time_step_min",
    "time_step_max": "time_step_max",
    "time_step_floor": "time_step_floor",
}
FIXED = {
    **HUGGING_FACE_FIXED,
    "hidden_act": ("silu",),
    # Concerns random starts. But with True, transformers (5.23) also scales the output
    # projections that it has just loaded, so False is what is written.
    "rescale_prenorm_residual": (False, True),
}
# Only for random starts, for speed, or left over from the original configuration: the sizes
# among these are wrong in some published folders, and transformers does not read them either.
IGNORED = (
    HUGGING_FACE_IGNORED
    | {"time_step_scale", "time_step_init_scheme", "use_mambapy", "use_associative_scan"}
    | {"fused_add_norm", "pad_vocab_size_multiple", "d_model", "d_inner", "n_layer", "ssm_cfg"}
    | {"rms_norm"}
)

STATE_SPACES_MIXER = {
    "d_state": "state_size",
    "d_conv": "conv_width",
    "expand": "expand",
    "bias": "use_bias",
    "conv_bias": "use_conv_bias",
    "dt_min": "time_step_min",
    "dt_max": "time_step_max",
    "dt_init_floor": "time_step_floor",
}
"""The options of `ssm_cfg` that both have."""


def state_spaces_format(mixer: ConfigFormat) -> ConfigFormat:
    """The format of state-spaces' config.json around an `ssm_cfg` of the format `mixer`."""
    return ConfigFormat(
        sizes={"d_model": "hidden_size", "n_layer": "num_layers", "vocab_size": "vocab_size"},
        options={"residual_in_fp32": "residual_in_float32"},
        fixed={
            "rms_norm": (True,),
            "d_intermediate": (0,),
            "attn_layer_idx": ([],),
            "attn_cfg": ({},),
            # The package that writes this file has no such attribute: it is fixed in its code.
            "norm_epsilon": (1e-5,),
        },
        ignored=frozenset({"fused_add_norm", "pad_vocab_size_multiple", "tie_embeddings"}),
        sections={"ssm_cfg": mixer},
    )
