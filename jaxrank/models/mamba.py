"""Mamba: a causal stack of selective state-space mixers.

Gu and Dao, 2023, arXiv 2312.00752. Matches transformers' MambaModel; random starts follow the
official package instead (`mamba_ssm.modules.mamba_simple.Mamba.__init__`; see `state_space.py`).

Letters of the paper: u the scan's input (here after convolution and SiLU), delta its time steps,
A the states' decay rates, B and C what writes to and reads from them, D the skip, z the gate.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

from flax import nnx
from jax import numpy as jnp
from jax.typing import DTypeLike

from jaxrank.models.backbone import Family
from jaxrank.models.layer_state import LayerState, initial_arrays, state_space_arrays
from jaxrank.models.state_space import (
    Mixed,
    StateSpaceBackbone,
    StateSpaceMixer,
    projection,
    projection_back,
    time_step_bias,
    uniform,
)
from jaxrank.models.state_space_config import StateSpaceConfig
from jaxrank.models.states import StateArray
from jaxrank.ops.selective_scan import selective_scan
from jaxrank.shapes import Array, Bool, Float


@dataclass(frozen=True)
class MambaConfig(StateSpaceConfig):
    """Sizes and constants of a Mamba backbone; the defaults are mamba-130m."""

    time_step_rank: int | None = None
    """Rank of the projection that makes the time steps; None: hidden_size / 16, rounded up."""

    @property
    def rank(self) -> int:
        """Rank of the time steps' projection, resolved."""
        return self.time_step_rank or math.ceil(self.hidden_size / 16)


class TimeStepProjection(nnx.Module):
    """From low rank to one time step a channel; its bias enters inside the scan, in float32."""

    def __init__(self, config: MambaConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        rank, inner = config.rank, config.inner_size
        self.kernel = nnx.Param(uniform(rank**-0.5)(rngs.params(), (rank, inner), jnp.float32))
        self.bias = nnx.Param(time_step_bias(config, inner, rngs.params()))
        self.dtype = dtype

    def __call__(self, low_rank: Float[Array, "B L R"]) -> Float[Array, "B L D"]:
        """Project, without the bias."""
        return low_rank @ self.kernel[...].astype(self.dtype)


class MambaMixer(StateSpaceMixer):
    """Convolution, selective scan and gate; matches transformers' MambaMixer.

    Section 3.4 and Figure 3 of the paper. All that a token takes from earlier ones comes in
    through `causal_conv1d` and `selective_scan`.
    """

    def __init__(self, config: MambaConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        inner, rank, states = config.inner_size, config.rank, config.state_size
        super().__init__(config, up=2 * inner, convolved=inner, dtype=dtype, rngs=rngs)
        self.x_proj = projection(inner, rank + 2 * states, use_bias=False, dtype=dtype, rngs=rngs)
        self.dt_proj = TimeStepProjection(config, dtype=dtype, rngs=rngs)
        self.A_log = nnx.Param(
            jnp.broadcast_to(jnp.log(jnp.arange(1.0, states + 1))[None, :], (inner, states))
        )
        self.D = nnx.Param(jnp.ones((inner,), jnp.float32))
        self.out_proj = projection_back(config, dtype=dtype, rngs=rngs)
        self.in_sections = (inner,)
        self.sections = (rank, rank + states)
        self.selective_scan_implementation = "auto"  # see choose_implementations

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
        x, z = self.in_proj.in_parts(hidden, self.in_sections)
        before, recurrence = initial_arrays(initial_state, x.dtype)
        u = self.convolve(x, reset=reset, before=before)
        low_rank, B, C = jnp.split(self.x_proj(u), self.sections, axis=-1)
        scanned: Any = selective_scan(
            u,
            self.dt_proj(low_rank),
            -jnp.exp(self.A_log[...]),
            B,
            C,
            D=self.D[...],
            z=z,
            delta_bias=self.dt_proj.bias[...],
            softplus=True,
            initial_state=recurrence,
            reset=reset,
            mask=final_mask,
            return_final_state=True,
            implementation=self.selective_scan_implementation,
        )
        y, recurrence = scanned
        return self.out_proj(y), self.final_state(x, before, recurrence, final_mask)


class Mamba(StateSpaceBackbone):
    """The backbone; matches transformers' MambaModel."""

    make_mixer = MambaMixer

    @staticmethod
    def state_arrays(config: MambaConfig) -> tuple[StateArray, ...]:
        """Inputs of the convolution, and the states of every channel."""
        inner = config.inner_size
        return state_space_arrays(config, convolved=inner, recurrence=(inner, config.state_size))


SMALLEST = MambaConfig()
PRESETS = {
    "mamba-tiny": replace(SMALLEST, hidden_size=64, num_layers=2),
    "mamba-130m": SMALLEST,
    "mamba-370m": replace(SMALLEST, hidden_size=1024, num_layers=48),
    "mamba-790m": replace(SMALLEST, hidden_size=1536, num_layers=48),
    "mamba-1.4b": replace(SMALLEST, hidden_size=2048, num_layers=48),
}

FAMILY = Family(
    name="mamba",
    config_class=MambaConfig,
    backbone=Mamba,
    pooling="last",
    wording="decoder",
    classification_head=None,
    presets=PRESETS,
    lora_targets=("in_proj", "x_proj", "out_proj"),
    state_arrays=Mamba.state_arrays,
)
