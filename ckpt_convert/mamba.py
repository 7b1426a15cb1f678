"""Mamba as data: Hugging Face's MambaModel and MambaForCausalLM, and state-spaces' own files."""

from ckpt_convert.architecture import Architecture
from ckpt_convert.config_format import ConfigFormat
from ckpt_convert.rules import TRANSPOSE, Rule
from ckpt_convert.state_space import (
    FIXED,
    IGNORED,
    OPTIONS,
    OUR_MIXER,
    SIZES,
    STATE_SPACES_MIXER,
    THEIR_MIXER,
    state_spaces_format,
    tables_of,
)

TABLES = tables_of(
    Rule(f"{OUR_MIXER}.x_proj.kernel", f"{THEIR_MIXER}.x_proj.weight", TRANSPOSE),
    Rule(f"{OUR_MIXER}.dt_proj.kernel", f"{THEIR_MIXER}.dt_proj.weight", TRANSPOSE),
    Rule(f"{OUR_MIXER}.dt_proj.bias", f"{THEIR_MIXER}.dt_proj.bias"),
)

CONFIG = ConfigFormat(
    sizes=SIZES,
    options=OPTIONS | {"state_size": "state_size", "time_step_rank": "time_step_rank"},
    fixed=FIXED,
    derived={"intermediate_size": "inner_size"},
    word_for_none="auto",
    ignored=IGNORED,
)

STATE_SPACES_CONFIG = state_spaces_format(
    ConfigFormat(
        sizes={},
        options=STATE_SPACES_MIXER | {"dt_rank": "time_step_rank"},
        fixed={"layer": ("Mamba1",)},
        word_for_none="auto",
        ignored=frozenset({"dt_init", "dt_scale", "use_fast_path"}),
    )
)

ARCHITECTURE = Architecture(
    TABLES,
    CONFIG,
    {"linear": "MambaModel"},
    template="paper",
    hidden_states="layers, final norm",
)
