"""The arithmetic of the backward kernel: one chunk of tokens, one channel of each thread.

y_t = (read_t + D u_t) silu(z_t) with read_t = <h_t, C_t>. With r_t = y_bar_t silu(z_t), and
a_t = exp(step_t A), which is exactly 0 at a reset,

    w_t   = a_t h_{t-1}                      what is left at a token of the state before it
    g_t   = C_t r_t + a_{t+1} g_{t+1}        cotangent of h_t, seeded by the final state's
    dB_t  = sum_d g_t drive_t                dC_t = sum_d h_t r_t         drive_t = step_t u_t
    dA    = sum_t step_t g_t w_t             dstep_t = sum_n A g_t w_t + u_t sum_n B_t g_t
    du_t  = step_t sum_n B_t g_t + D r_t     dinitial_state = a_1 g_1
    dz_t  = y_bar_t (read_t + D u_t) silu'(z_t)

A step of 0 is the identity and its softplus has a slope of 0: an absent token needs no branch.

The states are the outer loop: each goes from its kept value forward through the tokens, leaving a_t
and w_t in registers, and then back. So every exp is taken once and no state computed twice, and how
many registers there are is decided by the tokens of a chunk, not by the number of states.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.pallas import mosaic_gpu as plgpu

from jaxrank.ops.selective_scan.mosaic.operands import (
    BLOCK,
    KEEP_EVERY,
    LOG2E,
    channel_layout,
    load,
    sigmoid,
    softplus,
)

Row = list[jax.Array]  # one value a token, of each thread's channel


class Slot(NamedTuple):
    """A chunk's tokens in shared memory, `arrays[name][place]`, and which scan they are of."""

    arrays: dict[str, Any]  # u, delta, y_bar, perhaps z: (2, KEEP_EVERY, channels); and `shared`
    place: jax.Array
    states: int
    with_softplus: bool
    with_resets: bool

    def read(self, name: str, token: int, lane: "Lane") -> jax.Array:
        """Read one token, as float32."""
        return load(self.arrays[name].at[self.place, token, lane.own], channel_layout())

    def write(self, name: str, token: int, lane: "Lane", value: jax.Array) -> None:
        """Put a cotangent in the place of what it belongs to."""
        array = self.arrays[name]
        array[self.place, token, lane.own] = value.astype(array.dtype)

    def of_all(self, row: Any) -> Row:
        """Read a row of what all channels share: of B, of C, or the resets.

        All of it before anything is written, or the compiler would not join it to four-token reads.
        """
        return [self.arrays["shared"][self.place, row, token] for token in range(KEEP_EVERY)]


class Lane(NamedTuple):
    """BLOCK channels, one a thread; with two channels a thread a block has two lanes."""

    own: Any  # slice of the block's channels
    D: jax.Array
    delta_bias: jax.Array


class Moves(NamedTuple):
    """What the recurrence takes of each token: r is `read_bar`."""

    step: Row
    fall: Row  # the step, and RESET_EXPONENT at a reset: a = exp(fall A)
    drive: Row
    read_bar: Row


class Reads(NamedTuple):
    """What each token gets of all states: the sums of C h, B g and A g w."""

    C_h: Row
    B_g: Row
    A_gw: Row


class State(NamedTuple):
    """One state of one lane: its A, and its places in shared memory."""

    A: jax.Array
    kept: Any
    g: Any
    A_bar: Any


class Terms(NamedTuple):
    """What one state of one lane gives to the sums over channels."""

    B: Row
    C: Row


class Totals(NamedTuple):
    """What all tokens of a sequence add up to."""

    D_bar: jax.Array
    bias_bar: jax.Array


def prepare(slot: Slot, lane: Lane) -> Moves:
    """Compute what the recurrence takes."""
    moves = Moves([], [], [], [])
    forget = slot.of_all(2 * slot.states) if slot.with_resets else None
    for t in range(KEEP_EVERY):
        step = slot.read("delta", t, lane) + lane.delta_bias
        if slot.with_softplus:
            step = softplus(step)
        read_bar = slot.read("y_bar", t, lane)
        if "z" in slot.arrays:
            z = slot.read("z", t, lane)
            read_bar = read_bar * z * sigmoid(z)
        moves.step.append(step)
        moves.fall.append(step if forget is None else step + forget[t])
        moves.drive.append(step * slot.read("u", t, lane))
        moves.read_bar.append(read_bar)
    return moves


def zero_reads() -> Reads:
    """Return sums over no states."""
    zero = plgpu.layout_cast(jnp.zeros((BLOCK,), jnp.float32), channel_layout())
    return Reads(*[[zero] * KEEP_EVERY for _ in Reads._fields])


def run_state(state: State, B: Row, C: Row, moves: Moves, reads: Reads) -> tuple[Reads, Terms]:
    """Take one state forward through the chunk and back."""
    C_h, B_g, A_gw = (list(row) for row in reads)
    terms = Terms([], [])
    rate = LOG2E * state.A
    h = load(state.kept, channel_layout())
    decays, lefts = [], []
    for t in range(KEEP_EVERY):
        decays.append(jnp.exp2(moves.fall[t] * rate))
        lefts.append(decays[t] * h)
        h = lefts[t] + moves.drive[t] * B[t]
        C_h[t] = C_h[t] + h * C[t]
        terms.C.append(h * moves.read_bar[t])
    g, A_bar = load(state.g, channel_layout()), load(state.A_bar, channel_layout())
    for t in reversed(range(KEEP_EVERY)):
        g = g + moves.read_bar[t] * C[t]
        B_g[t] = B_g[t] + g * B[t]
        terms.B.insert(0, g * moves.drive[t])
        gw = g * lefts[t]
        A_gw[t] = A_gw[t] + gw * state.A
        A_bar = A_bar + gw * moves.step[t]
        g = decays[t] * g
    state.g[...] = g
    state.A_bar[...] = A_bar
    return Reads(C_h, B_g, A_gw), terms


def finish(slot: Slot, lane: Lane, moves: Moves, reads: Reads, totals: Totals) -> Totals:
    """Write the tokens' cotangents in place, and add to those of D and the bias."""
    D_bar, bias_bar = totals
    for t in range(KEEP_EVERY):
        u, read_bar = slot.read("u", t, lane), moves.read_bar[t]
        if "z" in slot.arrays:
            z, y_bar = slot.read("z", t, lane), slot.read("y_bar", t, lane)
            gate = sigmoid(z)
            silu_bar = y_bar * (reads.C_h[t] + lane.D * u)
            slot.write("z", t, lane, silu_bar * gate * (1.0 + z * (1.0 - gate)))
        delta_bar = u * reads.B_g[t] + reads.A_gw[t]
        if slot.with_softplus:
            delta_bar = delta_bar * sigmoid(slot.read("delta", t, lane) + lane.delta_bias)
        slot.write("delta", t, lane, delta_bar)
        slot.write("u", t, lane, moves.step[t] * reads.B_g[t] + lane.D * read_bar)
        D_bar = D_bar + read_bar * u
        bias_bar = bias_bar + delta_bar
    return Totals(D_bar, bias_bar)
