"""One state-space layer's part of a text's state: what it goes on from, and what it leaves.

A layer sees earlier tokens through two things only: the inputs that its convolution saw last, W - 1
of them, and the state of its recurrence.
"""

import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxrank.models.state_space_config import StateSpaceConfig
from jaxrank.models.states import StateArray
from jaxrank.shapes import Array, Bool, Float, Float32

LayerState = dict[str, Array]
"""`convolution` (B, W-1, D), the last inputs, oldest first, in what the mixer computes in, and
`recurrence` (B, ...), float32. Other dtypes may come in."""


def state_space_arrays(
    config: StateSpaceConfig, *, convolved: int, recurrence: tuple[int, ...]
) -> tuple[StateArray, ...]:
    """What a text's state is made of: channels of the convolution, shape of the recurrence's state.

    Eight bits are for the recurrence alone, which is nearly all of it.
    """
    layers, tail = config.num_layers, config.conv_width - 1
    return (
        StateArray("convolution", (layers, tail, convolved), quantised=False),
        StateArray("recurrence", (layers, *recurrence)),
    )


def initial_arrays(
    state: LayerState | None, dtype: DTypeLike
) -> tuple[Float[Array, "B tail D"] | None, Float32[Array, "B ..."] | None]:
    """The last inputs, in `dtype`, and the recurrence's state; None, for zeros, at a beginning."""
    if state is None:
        return None, None
    return state["convolution"].astype(dtype), state["recurrence"].astype(jnp.float32)


def last_inputs(
    x: Float[Array, "B L D"],
    *,
    before: Float[Array, "B tail D"] | None,
    mask: Bool[Array, "B L"],
    tail: int,
) -> Float[Array, "B tail D"]:
    """What the convolution of each text's next token will see beside it, from its inputs `x`.

    Taken by index, where `causal_conv1d` would sort the tokens to allow for holes in the mask:
    padding stands on the right. Texts may be shorter than `tail`, or empty; then it reaches back
    into `before`, the inputs that came before `x`, or zeros.
    """
    if before is None:
        before = jnp.zeros((x.shape[0], tail, x.shape[2]), x.dtype)
    inputs = jnp.concatenate([before, x], axis=1)
    places = jnp.sum(mask, axis=1)[:, None] + jnp.arange(tail)[None, :]
    return jnp.take_along_axis(inputs, places[:, :, None], axis=1)
