"""The kernel that carries a state through a segment of tokens and tells only what becomes of it.

Forward in time, the state h (the recurrence of `forward.py` without its reading):

    h <- exp(step_t A) * h + step_t u_t B_t            t = 1 .. L

backward in time, its cotangent g (see `backward.py`), where r_t = y_bar_t silu(z_t):

    g <- exp(step_t A) * (g + r_t C_t)                 t = L .. 1

Both are linear in what comes in: state_out = exp(span A) * state_in + end, where `span` is the sum
of the steps and `end` is what comes of zeros. With these two a sequence cut into segments can be
put together again (`split.py`).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from jaxrank.ops.selective_scan.mosaic import stream
from jaxrank.ops.selective_scan.mosaic.operands import (
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


class Carried(NamedTuple):
    """What becomes of a state on its way through the tokens of each row."""

    end: Any  # (B, N, D) float32: of a state of zeros
    span: Any  # (B, D) float32: the sum of the steps; RESET_EXPONENT or more if there is a reset


def carry_state(operands: Operands, *, softplus: bool, interpret: Any = None) -> Carried:
    """Carry a state of zeros from the first token of each row to the last."""
    return _carry(operands, (operands.u,), operands.B, softplus, interpret, reverse=False)


def carry_cotangent(
    operands: Operands, y_bar: jax.Array, *, softplus: bool, interpret: Any = None
) -> Carried:
    """Carry a state's cotangent of zeros from the last token of each row to the first."""
    gates = () if operands.z is None else (operands.z,)
    return _carry(operands, (y_bar, *gates), operands.C, softplus, interpret, reverse=True)


def _carry(
    operands: Operands,
    drives: tuple[jax.Array, ...],
    by_state: jax.Array,
    softplus: bool,
    interpret: Any,
    *,
    reverse: bool,
) -> Carried:
    rows, length, channels = operands.delta.shape
    states = operands.A.shape[0]
    # One channel a thread: sequences are split where blocks are too few.
    layout = channel_layout()
    streams = Streams((operands.delta, *drives), stream.join_columns((by_state,), operands.forget))
    columns = states + (operands.forget is not None)
    chunks = length // KEEP_EVERY

    def selective_scan_carry(
        streams: Streams, A: Any, delta_bias: Any, carried: Carried, slots: Streams, arrived: Any
    ) -> None:
        row = lax.axis_index("row")
        mine = pl.ds(lax.axis_index("block") * THREADS, THREADS)

        def start(number: Any, slot: Any) -> None:
            chunk = chunks - 1 - number if reverse else number
            stream.start(streams, slots, arrived, Place(row, mine), chunk, slot)

        start(0, 0)
        A = [LOG2E * load(A.at[n, mine], layout) for n in range(states)]
        delta_bias = load(delta_bias.at[mine], layout)
        zero = plgpu.layout_cast(jnp.zeros((THREADS,), jnp.float32), layout)

        def run_chunk(number: jax.Array, carry: Any) -> Any:
            slot = lax.rem(number, 2)

            @pl.when(number + 1 < chunks)
            def _() -> None:
                start(number + 1, 1 - slot)

            plgpu.barrier_wait(arrived.at[slot])

            def run_token(number: jax.Array, carry: Any) -> Any:
                h, span = carry
                token = KEEP_EVERY - 1 - number if reverse else number
                delta, drive, *z = (load(x.at[slot, token], layout) for x in slots.by_channel)
                shared = stream.read_row(
                    slots.shared.at[slot, token], columns, interpreted=interpret is not None
                )
                step = softplus_of(delta + delta_bias) if softplus else delta
                exponent = step + shared[states] if operands.forget is not None else step
                if not reverse:
                    drive = step * drive
                for gate in z:
                    drive = drive * (gate * sigmoid(gate))
                after = []
                for n in range(states):
                    decay = jnp.exp2(exponent * A[n])
                    write = drive * shared[n]
                    after.append(decay * (h[n] + write) if reverse else decay * h[n] + write)
                return tuple(after), span + exponent

            carry = lax.fori_loop(0, KEEP_EVERY, run_token, carry)
            stream.release()
            return carry

        h, span = lax.fori_loop(0, chunks, run_chunk, (tuple([zero] * states), zero))
        for n in range(states):
            carried.end[row, n, mine] = h[n]
        carried.span[row, mine] = span

    (carried,) = plgpu.kernel(
        selective_scan_carry,
        out_type=[
            Carried(
                jax.ShapeDtypeStruct((rows, states, channels), jnp.float32),
                jax.ShapeDtypeStruct((rows, channels), jnp.float32),
            )
        ],
        scratch_types=[stream.slot_types(streams, THREADS), stream.arrival_type(streams)],
        grid=(rows, channels // THREADS),
        grid_names=("row", "block"),
        compiler_params=compiler_params(),
        **interpreting(interpret),
    )(streams, operands.A, operands.delta_bias)
    return carried
