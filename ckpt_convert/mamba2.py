"""Mamba-2 as data: Hugging Face's Mamba2Model and Mamba2ForCausalLM, and state-spaces' own files.

With several groups, transformers and state-spaces normalise the gated channels group by group, and
so do we; releases of transformers that normalised over all of them compute something else.
"""

from ckpt_convert.architecture import Architecture
from ckpt_convert.config_format import ConfigFormat
from ckpt_convert.rules import Rule
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
    Rule(f"{OUR_MIXER}.dt_bias", f"{THEIR_MIXER}.dt_bias"),
    Rule(f"{OUR_MIXER}.norm.weight", f"{THEIR_MIXER}.norm.weight"),
)

CONFIG = ConfigFormat(
    # Where these are left out, transformers takes those of a 7B model with 8 groups.
    sizes=SIZES | {"state_size": "state_size", "head_dim": "head_size", "n_groups": "num_groups"},
    options=OPTIONS | {"time_step_limit": "time_step_limit"},
    fixed=FIXED,
    derived={"intermediate_size": "inner_size", "num_heads": "num_heads"},
    # How the recurrence is cut up, the rank of a projection that Mamba-2 has not, and a switch of
    # older folders that transformers never read: the gate comes first.
    ignored=IGNORED | {"chunk_size", "time_step_rank", "norm_before_gate"},
)

STATE_SPACES_CONFIG = state_spaces_format(
    ConfigFormat(
        sizes={},
        options=STATE_SPACES_MIXER
        | {"headdim": "head_size", "ngroups": "num_groups", "dt_limit": "time_step_limit"},
        fixed={
            "layer": ("Mamba2",),
            "d_ssm": (None,),
            "D_has_hdim": (False,),
            "rmsnorm": (True,),
            "norm_before_gate": (False,),
        },
        ignored=frozenset(
            {"chunk_size", "A_init_range", "conv_init", "use_mem_eff_path", "sequence_parallel"}
        ),
    )
)

ARCHITECTURE = Architecture(
    TABLES,
    CONFIG,
    {"linear": "Mamba2Model"},
    template="paper",
    hidden_states="layers, final norm",
)
