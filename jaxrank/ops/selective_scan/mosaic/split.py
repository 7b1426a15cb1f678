"""Sequences cut into segments that run side by side, where there are too few of them for a GPU.

A block of threads takes 128 channels of one sequence through all its tokens, so a batch of one has
D / 128 blocks, for 132 processors that want three or more each. Cut into S segments, which become
rows of the batch, it has S times as many:

1. each segment carries a state of zeros to its end, and sums its steps (`carry.py`);
2. h_c+1 = exp(span_c A) h_c + end_c over the segments gives each one's initial state;
3. the kernel runs as ever, from these.

The backward pass does the same with the cotangent of the state, from the last segment to the first.
So the recurrence is run twice: worth it while the processors would have little to do.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxrank.ops.selective_scan.mosaic.backward import Cotangents, run_backward
from jaxrank.ops.selective_scan.mosaic.carry import Carried, carry_cotangent, carry_state
from jaxrank.ops.selective_scan.mosaic.forward import Outputs, run_forward
from jaxrank.ops.selective_scan.mosaic.operands import (
    BLOCK,
    KEEP_EVERY,
    Operands,
    absent_delta,
)

# Three blocks for each of the 132 processors of an H200. Twice as many hide latency better still,
# but not twice as well, which is what the second run costs: so half of it is left alone.
BLOCKS_WANTED = 400

# A shorter segment would not be worth a block's start, which reads A and the state.
SHORTEST_SEGMENT = 128

BY_TOKEN = ("u", "delta", "z", "B", "C")


class Segments(NamedTuple):
    """How a sequence is cut: `number` times `length` tokens, of which the last may be padding."""

    number: int
    length: int


def choose_segments(
    batch: int, length: int, channels: int, *, shortest: int = SHORTEST_SEGMENT
) -> Segments:
    """How to cut sequences of `length` tokens, so that there are about BLOCKS_WANTED blocks."""
    blocks = batch * channels // BLOCK
    wanted = -(-BLOCKS_WANTED // blocks) if 2 * blocks <= BLOCKS_WANTED else 1
    return cut(length, max(1, min(wanted, length // shortest)))


def cut(length: int, number: int) -> Segments:
    """Cut `length` tokens into `number` segments, or fewer if some would be padding only."""
    segment = -(-length // (number * KEEP_EVERY)) * KEEP_EVERY
    return Segments(-(-length // segment), segment)


def run_forward_split(
    operands: Operands,
    initial_state: jax.Array,
    segments: Segments,
    *,
    softplus: bool,
    keep: bool,
    interpret: Any = None,
) -> Outputs:
    """`run_forward` in segments."""
    if segments.number == 1:
        return run_forward(
            operands, initial_state, softplus=softplus, keep=keep, interpret=interpret
        )
    rows = _as_rows(operands, segments, softplus=softplus)
    carried = carry_state(rows, softplus=softplus, interpret=interpret)
    starts = _chain(carried, operands.A, initial_state, segments.number, reverse=False)
    y, ends, kept = run_forward(rows, starts, softplus=softplus, keep=keep, interpret=interpret)
    length = operands.u.shape[1]
    kept = None if kept is None else _join(kept, segments.number, length // KEEP_EVERY)
    last = _by_segment(ends, segments.number)[:, -1]
    return Outputs(_join(y, segments.number, length), last, kept)


def run_backward_split(
    operands: Operands,
    kept: jax.Array,
    y_bar: jax.Array,
    state_bar: jax.Array,
    segments: Segments,
    *,
    softplus: bool,
    interpret: Any = None,
) -> Cotangents:
    """`run_backward` in segments."""
    if segments.number == 1:
        return run_backward(
            operands, kept, y_bar, state_bar, softplus=softplus, interpret=interpret
        )
    rows = _as_rows(operands, segments, softplus=softplus)
    # Padding writes nothing and nothing is read there, so any states will do for it.
    kept = _segment_rows(kept, segments.number, segments.length // KEEP_EVERY)
    y_bar = _segment_rows(y_bar, *segments)
    carried = carry_cotangent(rows, y_bar, softplus=softplus, interpret=interpret)
    seeds = _chain(carried, operands.A, state_bar, segments.number, reverse=True)
    bars = run_backward(rows, kept, y_bar, seeds, softplus=softplus, interpret=interpret)
    joined: dict[str, Any] = {
        name: None if bar is None else _join(bar, segments.number, operands.u.shape[1])
        for name, bar in bars._asdict().items()
        if name in BY_TOKEN
    }
    added = {
        name: jnp.sum(_by_segment(getattr(bars, name), segments.number), axis=1)
        for name in ("A", "D", "delta_bias")
    }
    first = _by_segment(bars.initial_state, segments.number)[:, 0]
    return Cotangents(**joined, **added, initial_state=first)


def _chain(
    carried: Carried, A: jax.Array, state: jax.Array, segments: int, *, reverse: bool
) -> jax.Array:
    """The state that comes into each segment (rows, N, D), of `state` (B, N, D) into the first."""

    def enter(state: jax.Array, segment: Carried) -> tuple[jax.Array, jax.Array]:
        decay = jnp.exp(segment.span[:, None, :] * A[None, :, :])
        return decay * state + segment.end, state

    by_segment = jax.tree.map(lambda x: jnp.swapaxes(_by_segment(x, segments), 0, 1), carried)
    _, entering = lax.scan(enter, state, by_segment, reverse=reverse)
    return jnp.swapaxes(entering, 0, 1).reshape(carried.end.shape)


def _as_rows(operands: Operands, segments: Segments, *, softplus: bool) -> Operands:
    """Make each segment a row of the batch; what pads the last one is as absent tokens are."""
    absent = {"delta": absent_delta(softplus=softplus)}
    return operands._replace(
        **{
            name: _segment_rows(x, *segments, padding=absent.get(name, 0.0))
            for name, x in operands._asdict().items()
            if name in (*BY_TOKEN, "forget") and x is not None
        }
    )


def _segment_rows(x: jax.Array, number: int, length: int, *, padding: float = 0.0) -> jax.Array:
    """(B, L, ...) -> (B number, length, ...), which moves nothing where nothing is padded."""
    more = number * length - x.shape[1]
    if more:
        widths = [(0, 0), (0, more)] + [(0, 0)] * (x.ndim - 2)
        x = jnp.pad(x, widths, constant_values=padding)
    return x.reshape(x.shape[0] * number, length, *x.shape[2:])


def _by_segment(x: jax.Array, segments: int) -> jax.Array:
    """(B segments, ...) -> (B, segments, ...)."""
    return x.reshape(-1, segments, *x.shape[1:])


def _join(x: jax.Array, number: int, length: int) -> jax.Array:
    """(B number, length of a segment, ...) -> (B, L, ...), without the padding."""
    whole = x.reshape(x.shape[0] // number, x.shape[1] * number, *x.shape[2:])
    return whole[:, :length]
