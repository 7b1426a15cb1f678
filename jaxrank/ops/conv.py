"""The short causal convolution that stands before the scan in Mamba.

Letters as in `jaxrank.shapes`; W is the width of the convolution (4 in Mamba).
"""

import functools
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
    `mask`, from `y` and from the final state, in reverse mode only (no `jvp`).

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

    y = _convolve(activation, x, initial_state, weight, bias, reset)
    if mask is not None:
        place = jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0)
        y = jnp.where(mask[:, :, None], _take_rows(y, place), 0)
    if not return_final_state:
        return y

    inputs, segment, _ = _with_tail(x, initial_state, reset)
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


Segments = jax.Array | None
Saved = tuple[
    jax.Array, jax.Array, jax.Array, jax.Array | None, jax.Array | None
]  # the arguments of _convolve


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _convolve(
    activation: str | None,
    x: jax.Array,
    initial_state: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None,
    reset: jax.Array | None,
) -> jax.Array:
    """The public equation, without a mask.

    Its own gradient keeps x alone for the backward pass; JAX's would keep four float32 arrays of
    its size. What is before the activation is W multiply-adds, so it is computed again.
    """
    y = _before_activation(weight, bias, *_with_tail(x, initial_state, reset))
    return (jax.nn.silu(y) if activation else y).astype(x.dtype)


def _with_tail(
    x: jax.Array, initial_state: jax.Array, reset: jax.Array | None
) -> tuple[jax.Array, Segments, Segments]:
    """All inputs (B, L+W-1, D), and of inputs and of outputs the segments (B, ..) they are in."""
    inputs = jnp.concatenate([initial_state, x], axis=1)
    if reset is None:
        return inputs, None, None
    segment = jnp.cumsum(reset, axis=1)
    return inputs, jnp.pad(segment, [(0, 0), (initial_state.shape[1], 0)]), segment


def _before_activation(
    weight: jax.Array, bias: jax.Array | None, inputs: jax.Array, *segments: Segments
) -> jax.Array:
    y = _correlate(inputs, weight.astype(jnp.float32), *segments)
    return y if bias is None else y + bias.astype(jnp.float32)[None, None, :]


def _correlate(
    inputs: jax.Array, weight: jax.Array, input_segment: Segments, output_segment: Segments
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
    inputs: jax.Array, weight: jax.Array, input_segment: Segments, output_segment: Segments
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


def _convolve_forward(activation: str | None, *saved: Any) -> tuple[jax.Array, Saved]:
    return _convolve(activation, *saved), saved


def _convolve_backward(
    activation: str | None, saved: Saved, y_bar: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | None, None]:
    x, initial_state, weight, bias, reset = saved
    tail = weight.shape[1] - 1
    inputs, input_segment, output_segment = _with_tail(x, initial_state, reset)
    before_bar = y_bar.astype(jnp.float32)
    if activation:
        before = _before_activation(weight, bias, inputs, input_segment, output_segment)
        sigmoid = jax.nn.sigmoid(before)
        before_bar = before_bar * (sigmoid * (1 + before * (1 - sigmoid)))
    # What goes through memory goes in x's dtype, as every gradient of x; without the barrier XLA
    # would make it float32 again, and twice as large.
    before_bar = jax.lax.optimization_barrier(before_bar.astype(x.dtype))
    wide = before_bar.astype(jnp.float32)
    shifts = _shifts(inputs, weight, input_segment, output_segment)
    sums = jax.lax.platform_dependent(
        *(wide * x for x in shifts), wide, cpu=_sums_one_by_one, default=_sums_at_once
    )

    beyond = [(0, 0), (tail, tail)]
    if output_segment is not None:
        output_segment = jnp.pad(output_segment, beyond, constant_values=-1)
    padded = jnp.pad(before_bar, [*beyond, (0, 0)])
    turned = weight.astype(jnp.float32)[:, ::-1]
    inputs_bar = _correlate(padded, turned, output_segment, input_segment).astype(x.dtype)
    return (
        inputs_bar[:, tail:],
        inputs_bar[:, :tail],
        sums[:-1].T.astype(weight.dtype),
        None if bias is None else sums[-1].astype(bias.dtype),
        None,
    )


_convolve.defvjp(_convolve_forward, _convolve_backward)


def _sums_at_once(*arrays: jax.Array) -> jax.Array:
    """(arrays, D): the sums over B and L as one sum; XLA on a GPU fuses it into one pass."""
    return jnp.sum(jnp.stack(arrays, axis=2), axis=(0, 1))


def _sums_one_by_one(*arrays: jax.Array) -> jax.Array:
    """The same for a CPU, where stacking copies."""
    return jnp.stack([jnp.sum(array, axis=(0, 1)) for array in arrays])


def _take_rows(x: jax.Array, rows: jax.Array) -> jax.Array:
    """x[b, rows[b, i]] for every sequence b."""
    return jax.vmap(lambda x, rows: x[rows])(x, rows)
