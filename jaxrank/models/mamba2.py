"""Mamba-2: a causal stack of state-space mixers whose heads share one decay.

Dao and Gu, 2024, arXiv 2405.21060. Matches transformers' Mamba2Model and state-spaces' own
`mamba_ssm.modules.mamba2.Mamba2`; random starts follow the latter's `__init__` (see
`state_space.py`): transformers starts A with 1, 2, 3, .. and it with numbers drawn from 1 to 16.

Letters of the paper: x the recurrence's input (here after convolution and SiLU), dt its time steps,
A the heads' decay rates, B and C what writes to and reads from the states, D the skip, z the gate.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import jax
from flax import nnx
from jax import numpy as jnp
from jax.typing import DTypeLike

from jaxrank.errors import InputError
from jaxrank.models.backbone import Family
from jaxrank.models.layer_state import LayerState, initial_arrays, state_space_arrays
from jaxrank.models.stack import keep_beside_projections
from jaxrank.models.state_space import (
    Mixed,
    StateSpaceBackbone,
    StateSpaceMixer,
    projection_back,
    time_step_bias,
)
from jaxrank.models.state_space_config import StateSpaceConfig
from jaxrank.models.states import StateArray
from jaxrank.ops.norm import gated_rms_norm
from jaxrank.ops.ssd import ssd
from jaxrank.shapes import Array, Bool, Float

DECAY_AT_START = (1.0, 16.0)  # `A_init_range` of mamba_ssm's Mamba2.


@dataclass(frozen=True)
class Mamba2Config(StateSpaceConfig):
    """Sizes and constants of a Mamba-2 backbone; the defaults are mamba2-130m."""

    vocab_size: int = 50288
    """Rows of the token table; GPT-NeoX's 50,277 tokens, padded to a multiple of 16."""

    state_size: int = 128
    """States of each inner channel (N); as published."""

    head_size: int = 64
    """Inner channels of a head (P), which share one decay and one time step; as published."""

    num_groups: int = 1
    """Groups of heads (G); the heads of a group share B and C, and the gated norm scales the
    channels of a group together. The published sizes here have one."""

    time_step_limit: tuple[float, float] = (0.0, math.inf)
    """Smallest and largest time step, in use and not only at the start; as published."""

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.time_step_limit
        if not 0 <= low < high:
            raise InputError(
                f"Mamba2Config: time_step_limit is {self.time_step_limit}; needed is 0 <= lowest < "
                "highest"
            )
        if self.inner_size % self.head_size or self.num_heads % self.num_groups:
            raise InputError(
                f"Mamba2Config: {self.inner_size} inner channels (expand x hidden_size), head_size "
                f"{self.head_size}, num_groups {self.num_groups}; heads must fill the channels, "
                "groups the heads"
            )

    @property
    def num_heads(self) -> int:
        """Heads of a mixer."""
        return self.inner_size // self.head_size

    @property
    def convolved_size(self) -> int:
        """Channels that the convolution sees: the recurrence's inputs, its B and its C."""
        return self.inner_size + 2 * self.num_groups * self.state_size


class GatedRMSNorm(nnx.Module):
    """Gate with SiLU, then scale each group of channels to a root mean square of one.

    Matches transformers' MambaRMSNormGated and mamba_ssm's RMSNormGated (norm_before_gate False).
    """

    def __init__(self, config: Mamba2Config, *, dtype: DTypeLike) -> None:
        self.weight = nnx.Param(jnp.ones((config.inner_size,), jnp.float32))
        self.num_groups = config.num_groups
        self.epsilon = config.norm_epsilon
        self.dtype = dtype

    def __call__(self, y: Float[Array, "B L D"], z: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        """Gate `y` with `z` and normalise, in float32; yield `dtype`."""
        normed = gated_rms_norm(
            y, z, self.weight[...], epsilon=self.epsilon, num_groups=self.num_groups
        )
        return normed.astype(self.dtype)


class Mamba2Mixer(StateSpaceMixer):
    """Convolution, recurrence, gate and norm; matches transformers' Mamba2Mixer.

    Section 7.1 and figure 6 of the paper (the parallel projection). All that a token takes from
    earlier ones comes in through `causal_conv1d` and `ssd`.
    """

    def __init__(self, config: Mamba2Config, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        inner, heads = config.inner_size, config.num_heads
        shared = config.num_groups * config.state_size
        convolved = config.convolved_size
        super().__init__(
            config, up=inner + convolved + heads, convolved=convolved, dtype=dtype, rngs=rngs
        )
        low, high = DECAY_AT_START
        self.dt_bias = nnx.Param(time_step_bias(config, heads, rngs.params()))
        decay = jax.random.uniform(rngs.params(), (heads,), jnp.float32, low, high)
        self.A_log = nnx.Param(jnp.log(decay))
        self.D = nnx.Param(jnp.ones((heads,), jnp.float32))
        self.norm = GatedRMSNorm(config, dtype=dtype)
        self.out_proj = projection_back(config, dtype=dtype, rngs=rngs)
        self.sections = (inner, inner + convolved)
        self.convolved_sections = (inner, inner + shared)
        self.head_size = config.head_size
        self.num_groups = config.num_groups
        self.time_step_limit = config.time_step_limit
        self.ssd_implementation = "auto"  # see choose_implementations

    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        *,
        reset: Bool[Array, "B L"] | None = None,
        initial_state: LayerState | None = None,
        final_mask: Bool[Array, "B L"] | None = None,
    ) -> Mixed:
        """Mix each token with those before it, back to the last where `reset` is True.

        Other arguments as those of StateSpaceLayer.
        """
        batch_length = hidden.shape[:2]
        z, xBC, dt = self.in_proj.in_parts(hidden, self.sections)
        before, recurrence = initial_arrays(initial_state, xBC.dtype)
        convolved = self.convolve(xBC, reset=reset, before=before)
        x, B, C = jnp.split(convolved, self.convolved_sections, axis=-1)
        # Steps are float32 from here on: softplus and the decays would lose them in bfloat16.
        dt = jax.nn.softplus(dt.astype(jnp.float32) + self.dt_bias[...][None, None, :])
        scanned: Any = ssd(
            x.reshape(*batch_length, -1, self.head_size),
            jnp.clip(dt, *self.time_step_limit),
            -jnp.exp(self.A_log[...]),
            B.reshape(*batch_length, self.num_groups, -1),
            C.reshape(*batch_length, self.num_groups, -1),
            D=self.D[...],
            initial_state=recurrence,
            reset=reset,
            mask=final_mask,
            return_final_state=True,
            implementation=self.ssd_implementation,
        )
        y, recurrence = scanned
        y = keep_beside_projections(y.reshape(x.shape))
        mixed = self.out_proj(self.norm(y, z))
        return mixed, self.final_state(xBC, before, recurrence, final_mask)


class Mamba2(StateSpaceBackbone):
    """The backbone; matches transformers' Mamba2Model."""

    make_mixer = Mamba2Mixer

    @staticmethod
    def state_arrays(config: Mamba2Config) -> tuple[StateArray, ...]:
        """Inputs of the convolution, and the states of every head."""
        heads = config.num_heads, config.head_size, config.state_size
        return state_space_arrays(config, convolved=config.convolved_size, recurrence=heads)


SMALLEST = Mamba2Config()
PRESETS = {
    "mamba2-tiny": replace(SMALLEST, hidden_size=64, num_layers=2, state_size=32, head_size=32),
    "mamba2-130m": SMALLEST,
    "mamba2-370m": replace(SMALLEST, hidden_size=1024, num_layers=48),
    "mamba2-780m": replace(SMALLEST, hidden_size=1536, num_layers=36),
    "mamba2-1.3b": replace(SMALLEST, hidden_size=2048, num_layers=48),
}

FAMILY = Family(
    name="mamba2",
    config_class=Mamba2Config,
    backbone=Mamba2,
    pooling="last",
    wording="decoder",
    classification_head=None,
    presets=PRESETS,
    lora_targets=("in_proj", "out_proj"),
    state_arrays=Mamba2.state_arrays,
)
