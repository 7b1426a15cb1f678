"""The short causal convolution that stands before the scan in Mamba.

Letters as in `jaxrank.shapes`; W is the width of the convolution (4 in Mamba).
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from jaxrank.ops.arguments import check_array, check_implementation, check_rank
from jaxrank.shapes import Array, Bool, Float


def causal_conv1d(
    x: Float[Array, "B L D"],
    weight: Float[Array, "D W"],
    bias: Float[Array, " D"] | None = None,
    *,
    activation: str | None = None,
    initial_state: Float[Array, "B tail D"] | None = None,
    reset: Bool[Array, "B L"] | None = None,
    mask: Bool[Array, "B L"] | None = None,
    return_final_state: bool = False,
    implementation: str = "auto",
) -> Float[Array, "B L D"] | tuple[Float[Array, "B L D"], Float[Array, "B tail D"]]:
    """Convolve every channel with its own `weight` over the current and the W-1 inputs before it.

        y_t = activation(bias + sum_k weight[:, k] x_{t - (W-1) + k})

    Computed in float32, returned in x's dtype. Gradients flow to every array but `reset` and
    `mask`, from `y` and from the final state.

    Args:
        activation: None or "silu".
        initial_state: (B, W-1, D) in x's dtype, the inputs before the first one, oldest first;
            zeros if None.
        reset: at a True position everything before it counts as zeros, `initial_state` too.
        mask: a False position is as if absent, wherever it stands: its neighbours move together,
            its reset does not count, nothing of it reaches any output or gradient; its y is 0.
        return_final_state: also return the last W-1 inputs that were there (those before the last
            reset as zeros), which continue the sequence when they come back as `initial_state`.
        implementation: "xla", or "auto", which is the same.

    Returns:
        y, or (y, final state).

    Raises:
        ValueError: a shape, a dtype or a name does not fit.
    """
    check_arguments(x, weight, bias, initial_state, reset, mask)
    check_implementation("causal_conv1d", implementation, ["xla"])
    if activation not in (None, "silu"):
        raise ValueError(f"activation: {activation!r} came; None or 'silu' is needed")
    batch, length, channels = x.shape
    tail = weight.shape[1] - 1
    if initial_state is None:
        initial_state = jnp.zeros((batch, tail, channels), x.dtype)

    num_real = jnp.full(batch, length)
    if mask is not None:
        # Move the absent inputs to the end, where a causal convolution does not see them.
        order = jnp.argsort(~mask, axis=1, stable=True)
        num_real = jnp.sum(mask, axis=1)
        x = _take_rows(jnp.where(mask[:, :, None], x, 0), order)
        if reset is not None:
            reset = _take_rows(reset, order)

    inputs = jnp.concatenate([initial_state, x], axis=1)
    segment = output_segment = None
    if reset is not None:
        output_segment = jnp.cumsum(reset, axis=1)
        segment = jnp.pad(output_segment, [(0, 0), (tail, 0)])
    y = _correlate(inputs, weight.astype(jnp.float32), segment, output_segment)
    if bias is not None:
        y = y + bias.astype(jnp.float32)[None, None, :]
    if activation == "silu":
        y = jax.nn.silu(y)
    y = y.astype(x.dtype)
    if mask is not None:
        place = jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0)
        y = jnp.where(mask[:, :, None], _take_rows(y, place), 0)
    if not return_final_state:
        return y

    last = num_real[:, None] + jnp.arange(tail)[None, :]
    final_state = inputs[:, length:] if mask is None else _take_rows(inputs, last)
    if segment is not None and tail:
        segments = _take_rows(segment, last)
        final_state = jnp.where((segments == segments[:, -1:])[:, :, None], final_state, 0)
    return y, final_state


def check_arguments(
    x: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None,
    initial_state: jax.Array | None,
    reset: jax.Array | None,
    mask: jax.Array | None,
) -> None:
    """Raise ValueError, naming the argument, if shapes or dtypes do not fit each other."""
    check_rank("x", x, "B L D")
    check_rank("weight", weight, "D W")
    batch, length, channels = x.shape
    width = weight.shape[1]
    check_array("x", x, x.shape)
    check_array("weight", weight, (channels, width))
    check_array("bias", bias, (channels,))
    # The dtype of x, so that the tail, which mixes the two, holds both exactly.
    check_array("initial_state", initial_state, (batch, width - 1, channels), x.dtype.type)
    for name, mark in (("reset", reset), ("mask", mask)):
        check_array(name, mark, (batch, length), jnp.bool_)


@jax.custom_vjp
def _correlate(
    inputs: jax.Array,
    weight: jax.Array,
    input_segment: jax.Array | None,
    output_segment: jax.Array | None,
) -> jax.Array:
    """Weigh W neighbours: (B, L+W-1, D) to float32 (B, L, D), each within its own segment.

    W shifted multiply-adds fuse into one loop without temporaries, where a general convolution
    would copy. So does the gradient, which is the same with the weights turned round; JAX's own
    would add up W padded arrays.
    """
    y = jnp.zeros((), jnp.float32)
    for tap, shifted in enumerate(_shifts(inputs, weight, input_segment, output_segment)):
        y = y + weight[:, tap][None, None, :] * shifted
    return y


def _shifts(
    inputs: jax.Array,
    weight: jax.Array,
    input_segment: jax.Array | None,
    output_segment: jax.Array | None,
) -> Iterator[jax.Array]:
    """What each tap of `weight` sees, in float32: zero where it lies in another segment."""
    width = weight.shape[1]
    length = inputs.shape[1] - width + 1
    for tap in range(width):
        shifted = inputs[:, tap : tap + length].astype(jnp.float32)
        if input_segment is not None and output_segment is not None:
            same = input_segment[:, tap : tap + length] == output_segment
            shifted = jnp.where(same[:, :, None], shifted, 0.0)
        yield shifted


Saved = tuple[jax.Array, jax.Array, jax.Array | None, jax.Array | None]


def _correlate_forward(*saved: Any) -> tuple[jax.Array, Saved]:
    return _correlate(*saved), saved


def _correlate_backward(saved: Saved, y_bar: jax.Array) -> tuple[jax.Array, jax.Array, None, None]:
    inputs, weight, input_segment, output_segment = saved
    tail = weight.shape[1] - 1
    beyond = [(0, 0), (tail, tail)]
    if output_segment is not None:
        output_segment = jnp.pad(output_segment, beyond, constant_values=-1)
    padded = jnp.pad(y_bar, [*beyond, (0, 0)])
    inputs_bar = _correlate(padded, weight[:, ::-1], output_segment, input_segment)
    shifts = _shifts(inputs, weight, input_segment, saved[3])
    weight_bar = jnp.stack([jnp.sum(y_bar * shifted, axis=(0, 1)) for shifted in shifts], axis=1)
    return inputs_bar.astype(inputs.dtype), weight_bar, None, None


_correlate.defvjp(_correlate_forward, _correlate_backward)


def _take_rows(x: jax.Array, rows: jax.Array) -> jax.Array:
    """x[b, rows[b, i]] for every sequence b."""
    return jax.vmap(lambda x, rows: x[rows])(x, rows)
