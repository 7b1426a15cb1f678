"""Dynamic loss scaling, which keeps the small gradients of a float16 model above zero.

Micikevicius et al., 2017, arXiv 1710.03740, section 3.2, with the constants of PyTorch's
GradScaler. Flax has a `DynamicScale` too; it wraps the whole `value_and_grad`, and accumulation
needs the two halves apart.
"""

from typing import NamedTuple

import jax.numpy as jnp

from jaxrank.shapes import Array, Bool, Float32, Int

FIRST_SCALE = 65536.0
GROWTH_INTERVAL = 2000


class LossScale(NamedTuple):
    """What the loss is multiplied by; part of the training state."""

    scale: Float32[Array, ""]
    finite_steps: Int[Array, ""]
    """Steps since the scale last changed."""


def init_loss_scale(scale: float = FIRST_SCALE) -> LossScale:
    """A scale before the first step."""
    return LossScale(jnp.float32(scale), jnp.zeros((), jnp.int32))


def update_loss_scale(state: LossScale, *, is_finite: Bool[Array, ""]) -> LossScale:
    """Halve after an overflow (to no less than 1); double after `GROWTH_INTERVAL` steps without."""
    grows = state.finite_steps + 1 >= GROWTH_INTERVAL
    # Infinity would never come down again.
    grown = jnp.where(grows & jnp.isfinite(state.scale * 2), state.scale * 2, state.scale)
    shrunk = jnp.maximum(state.scale / 2, 1.0)
    return LossScale(
        jnp.where(is_finite, grown, shrunk),
        jnp.where(is_finite & ~grows, state.finite_steps + 1, 0),
    )
