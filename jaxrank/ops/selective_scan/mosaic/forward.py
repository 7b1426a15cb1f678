"""The forward kernel of `selective_scan`: y, the final state, and the states kept for the backward.

    step_t = softplus(delta_t + delta_bias)
    h_t    = exp(step_t A) * h_{t-1} + step_t u_t B_t
    y_t    = (<h_t, C_t> + D u_t) * silu(z_t)

One block of threads takes 128 or 256 channels of one sequence through all its tokens, with their
states in registers: states go to memory every KEEP_EVERY tokens only, and not at all where no
gradient is asked for. B_t and C_t are read by all threads at once, which shared memory serves in
one access.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from jaxrank.ops.selective_scan.mosaic import stream
from jaxrank.ops.selective_scan.mosaic.operands import (
    BLOCK,
    KEEP_EVERY,
    LOG2E,
    THREADS,
    Operands,
    channel_layout,
    compiler_params,
    interpreting,
    load,
    sigmoid,
)
from jaxrank.ops.selective_scan.mosaic.operands import (
    softplus as softplus_of,
)
from jaxrank.ops.selective_scan.mosaic.stream import Place, Streams

# Two channels a thread share the reading of B and C and hide each other's latency, at half as many
# blocks: worth it while the 132 processors of an H200 still get two each. Beyond 16 states their
# registers would not do.
BLOCKS_FOR_TWO_CHANNELS = 264
STATES_FOR_TWO_CHANNELS = 16


class Outputs(NamedTuple):
    """What the kernel writes."""

    y: Any  # (B, L, D) in u's dtype
    final_state: Any  # (B, N, D) float32
    kept: Any | None  # (B, L // KEEP_EVERY, N, D) float32


def run_forward(
    operands: Operands,
    initial_state: jax.Array,
    *,
    softplus: bool,
    keep: bool,
    interpret: Any = None,
) -> Outputs:
    """Run the recurrence from `initial_state` (B, N, D) over L tokens, a multiple of KEEP_EVERY.

    With `keep`, kept[:, c] is the state before token c * KEEP_EVERY.
    """
    batch, length, channels = operands.u.shape
    states = operands.A.shape[0]
    assert (length % KEEP_EVERY, channels % BLOCK) == (0, 0), (length, channels)
    per_thread = channels_per_thread(batch, channels, states)
    width = THREADS * per_thread
    layout = channel_layout(per_thread)
    gates = () if operands.z is None else (operands.z,)
    streams = Streams(
        (operands.u, operands.delta, *gates),
        stream.join_columns((operands.B, operands.C), operands.forget),
    )
    columns = 2 * states + (operands.forget is not None)
    chunks = length // KEEP_EVERY

    def selective_scan_forward(
        streams: Streams,
        A: Any,
        D: Any,
        delta_bias: Any,
        initial_state: Any,
        outputs: Outputs,
        slots: Streams,
        arrived: Any,
    ) -> None:
        row = lax.axis_index("row")
        mine = pl.ds(lax.axis_index("block") * width, width)
        place = Place(row, mine)
        stream.start(streams, slots, arrived, place, 0, 0)
        A = [LOG2E * load(A.at[n, mine], layout) for n in range(states)]
        D, delta_bias = load(D.at[mine], layout), load(delta_bias.at[mine], layout)
        h = tuple(load(initial_state.at[row, n, mine], layout) for n in range(states))

        def run_chunk(chunk: jax.Array, h: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            slot = lax.rem(chunk, 2)

            @pl.when(chunk + 1 < chunks)
            def _() -> None:
                stream.start(streams, slots, arrived, place, chunk + 1, 1 - slot)

            if outputs.kept is not None:
                for n in range(states):
                    outputs.kept[row, chunk, n, mine] = h[n]

            plgpu.barrier_wait(arrived.at[slot])

            def run_token(token: jax.Array, h: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
                u, delta, *z = (array.at[slot, token] for array in slots.by_channel)
                u, delta = load(u, layout), load(delta, layout)
                shared = stream.read_row(
                    slots.shared.at[slot, token], columns, interpreted=interpret is not None
                )
                step = softplus_of(delta + delta_bias) if softplus else delta
                B, C, forget = shared[:states], shared[states : 2 * states], shared[2 * states :]
                exponent = step + forget[0] if forget else step
                write, y, after = step * u, D * u, []
                for n in range(states):
                    after.append(jnp.exp2(exponent * A[n]) * h[n] + write * B[n])
                    y = y + after[n] * C[n]
                for gate in z:
                    gate = load(gate, layout)
                    y = y * (gate * sigmoid(gate))
                outputs.y[row, chunk * KEEP_EVERY + token, mine] = y.astype(outputs.y.dtype)
                return tuple(after)

            h = lax.fori_loop(0, KEEP_EVERY, run_token, h)
            stream.release()
            return h

        h = lax.fori_loop(0, chunks, run_chunk, h)
        for n in range(states):
            outputs.final_state[row, n, mine] = h[n]

    def array(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype)

    kept = array(batch, length // KEEP_EVERY, states, channels) if keep else None
    (outputs,) = plgpu.kernel(
        selective_scan_forward,
        out_type=[
            Outputs(
                array(batch, length, channels, dtype=operands.u.dtype),
                array(batch, states, channels),
                kept,
            )
        ],
        scratch_types=[stream.slot_types(streams, width), stream.arrival_type(streams)],
        grid=(batch, channels // width),
        grid_names=("row", "block"),
        compiler_params=compiler_params(),
        **interpreting(interpret),
    )(streams, operands.A, operands.D, operands.delta_bias, initial_state)
    return outputs


def channels_per_thread(rows: int, channels: int, states: int) -> int:
    """Two where there are enough channels, and few enough states for the registers; else one."""
    wide = 2 * THREADS
    enough = channels % wide == 0 and rows * channels // wide >= BLOCKS_FOR_TWO_CHANNELS
    return 2 if enough and states <= STATES_FOR_TWO_CHANNELS else 1
