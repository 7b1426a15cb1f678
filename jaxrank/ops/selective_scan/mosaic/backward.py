"""The backward kernel of the selective scan: what goes in, what comes out, how it is launched.

A block of threads takes 128 channels of one sequence, or 256, and goes through the chunks of
KEEP_EVERY tokens from last to first: `backward_block.py`. What it computes is in `adjoint.py`.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.pallas import mosaic_gpu as plgpu

from jaxrank.ops.selective_scan.mosaic.backward_block import (
    ROWS,
    STATES_TOGETHER,
    run_block,
    scratch_types,
    shared_bytes,
)
from jaxrank.ops.selective_scan.mosaic.operands import (
    BLOCK,
    KEEP_EVERY,
    Operands,
    compiler_params,
    interpreting,
)

# Two channels a thread add up their terms of dB and dC before these go through shared memory, and
# share the reading of B and C: 10% fewer instructions, half the traffic. But they halve the number
# of blocks, of which each of an H200's 132 multiprocessors has room for two: by its registers, and
# if a block leaves as much shared memory to another one.
BLOCKS_FOR_TWO_CHANNELS = 2 * 132
SHARED_BYTES_FOR_TWO_BLOCKS = 113 * 1024


class Cotangents(NamedTuple):
    """What `run_backward` returns, in the dtypes of what they belong to.

    And in their shapes, but those of A, D and delta_bias are by row: (B, N, D), (B, D), (B, D).
    """

    u: jax.Array
    delta: jax.Array
    z: jax.Array | None
    A: jax.Array
    B: jax.Array
    C: jax.Array
    D: jax.Array
    delta_bias: jax.Array
    initial_state: jax.Array


def run_backward(
    operands: Operands,
    kept: jax.Array,
    y_bar: jax.Array,
    state_bar: jax.Array,
    *,
    softplus: bool,
    interpret: Any = None,
    per_thread: int | None = None,
) -> Cotangents:
    """Return the cotangents of the operands and of the initial state, (B, N, D) float32.

    Args:
        operands: what the forward kernel read; D a multiple of BLOCK, N of STATES_TOGETHER.
        kept: the states before every KEEP_EVERY-th token, (B, L / KEEP_EVERY, N, D) float32.
        y_bar, state_bar: cotangents of y, (B, L, D), and of the final state, (B, N, D) float32.
        softplus: whether the step is softplus(delta + delta_bias) or delta + delta_bias.
        interpret: as `plgpu.kernel` takes it.
        per_thread: channels a thread, 1 or 2; by default `channels_per_thread` says.
    """
    batch, length, channels = operands.u.shape
    states = operands.A.shape[0]
    inputs = _inputs(operands, kept, y_bar, state_bar)
    if per_thread is None:
        per_thread = channels_per_thread(inputs)
    width = per_thread * BLOCK
    assert (length % KEEP_EVERY, states % STATES_TOGETHER, channels % width) == (0, 0, 0)
    chunks, blocks = length // KEEP_EVERY, channels // width

    def float32(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    by_token = {name: inputs[name] for name in ("u", "delta", "z") if name in inputs}
    outputs = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in by_token.items()} | {
        "BC": float32(blocks, batch, chunks, states // STATES_TOGETHER, ROWS),
        "A": float32(batch, states, channels),
        "initial_state": float32(batch, states, channels),
        "D": float32(batch, channels),
        "delta_bias": float32(batch, channels),
    }
    (bars,) = plgpu.kernel(
        functools.partial(
            run_block, with_softplus=softplus, with_resets=operands.forget is not None
        ),
        out_type=(outputs,),
        scratch_types={"memory": scratch_types(inputs, width)},
        grid=(batch, blocks),
        grid_names=("row", "block"),
        kernel_name="selective_scan_backward",
        compiler_params=compiler_params(),
        **interpreting(interpret),
    )(inputs)
    # Blocks add in a fixed order, and XLA adds what they leave: no atomics, so the same bits in
    # every run.
    BC = jnp.sum(bars["BC"], axis=0).reshape(batch, chunks, states, 2, KEEP_EVERY)
    B, C = (jnp.swapaxes(BC[..., i, :], 2, 3).reshape(batch, length, states) for i in (0, 1))
    by_name = {name: bar for name, bar in bars.items() if name != "BC"}
    return Cotangents(**{"z": None} | by_name, B=B, C=C)


def channels_per_thread(inputs: dict[str, jax.Array]) -> int:
    """Two where there are enough channels, and room for two blocks of them; else one."""
    rows, _, channels = inputs["u"].shape
    width = 2 * BLOCK
    enough = channels % width == 0 and rows * channels // width >= BLOCKS_FOR_TWO_CHANNELS
    room = shared_bytes(scratch_types(inputs, width)) <= SHARED_BYTES_FOR_TWO_BLOCKS
    return 2 if enough and room else 1


def _inputs(
    operands: Operands, kept: jax.Array, y_bar: jax.Array, state_bar: jax.Array
) -> dict[str, jax.Array]:
    """What the kernel reads. Without a gate there is no z."""
    inputs = {
        "u": operands.u,
        "delta": operands.delta,
        "y_bar": y_bar,
        "kept": kept,
        "shared": _pack(operands),
        "A": operands.A,
        "D": operands.D,
        "delta_bias": operands.delta_bias,
        "state_bar": state_bar,
    }
    return inputs if operands.z is None else inputs | {"z": operands.z}


def _pack(operands: Operands) -> jax.Array:
    """What all channels share, by chunk: rows of KEEP_EVERY tokens, N of B, N of C, one of resets.

    So one copy brings a chunk of it, whose size is a multiple of 128 bytes, and a thread reads four
    tokens at once.
    """
    batch, length, states = operands.B.shape
    chunked = (batch, length // KEEP_EVERY, KEEP_EVERY)
    rows = [jnp.swapaxes(x.reshape(*chunked, states), 2, 3) for x in (operands.B, operands.C)]
    if operands.forget is not None:
        rows.append(operands.forget.reshape(chunked)[:, :, None, :])
    packed = jnp.concatenate(rows, axis=2)
    padding = -packed.shape[2] % (128 // (4 * KEEP_EVERY))
    return jnp.pad(packed, [(0, 0), (0, 0), (0, padding), (0, 0)])
