"""One block of the backward kernel: its copies, where its threads meet, its sums over channels.

The sums over channels are what costs most beside the recurrence. Each term of dB and dC is written
to shared memory by the thread of its channel and read by the four that add up its row: at one
channel a thread that keeps shared memory as busy as the arithmetic keeps everything else.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from jaxrank.ops.selective_scan.mosaic.adjoint import (
    Lane,
    Moves,
    Reads,
    Slot,
    State,
    Totals,
    finish,
    prepare,
    run_state,
    zero_reads,
)
from jaxrank.ops.selective_scan.mosaic.operands import BLOCK, KEEP_EVERY, channel_layout, load

# Terms that are added up at once, one row each: of dB and dC, for the tokens of as many states as
# that makes. A warp reads 8 rows, 4 lanes a row, 4 numbers a lane; with 16 numbers of padding the
# two rows that are read in one access lie in different halves of the 32 banks.
ROWS = 32
STATES_TOGETHER = ROWS // (2 * KEEP_EVERY)
ROW_STRIDE = BLOCK + 16
ROWS_LAYOUT = plgpu.Layout.TILED(
    plgpu.Tiling(((ROWS, 16), (8, 16), (4,))), warp_dims=(-5,), lane_dims=(-3, -2), vector_dim=-1
)


Rates = list[list[jax.Array]]  # A of STATES_TOGETHER states, of each of a thread's channels


class Memory(NamedTuple):
    """Shared memory of a block; `width` channels."""

    slots: dict[str, Any]  # two chunks of tokens: (2, KEEP_EVERY, width), and `shared`
    arrived: Any
    kept: Any  # (N, width), of the chunk that is worked on
    kept_arrived: Any
    g: Any  # (N, width): cotangent of the state, times the decay
    A_bar: Any  # (N, width)
    terms: Any  # (ROWS, ROW_STRIDE)
    sums: Any  # (N / STATES_TOGETHER, ROWS), of one chunk


def scratch_types(inputs: dict[str, jax.Array], width: int) -> Memory:
    """What `plgpu.kernel` allocates for a block of `width` channels."""
    states = inputs["A"].shape[0]

    def memory(*shape: int, dtype: Any = jnp.float32) -> Any:
        return plgpu.SMEM(shape, dtype)

    slots: dict[str, Any] = {
        name: memory(2, KEEP_EVERY, width, dtype=inputs[name].dtype)
        for name in ("u", "delta", "y_bar", "z")
        if name in inputs
    }
    slots["shared"] = memory(2, *inputs["shared"].shape[2:])
    return Memory(
        slots=slots,
        arrived=plgpu.Barrier(num_arrivals=len(slots), num_barriers=2),
        kept=memory(states, width),
        kept_arrived=plgpu.Barrier(num_arrivals=1),
        g=memory(states, width),
        A_bar=memory(states, width),
        terms=memory(ROWS, ROW_STRIDE),
        sums=memory(states // STATES_TOGETHER, ROWS),
    )


def shared_bytes(memory: Memory) -> int:
    """Bytes of shared memory, the few of its barriers left out."""
    arrays = [
        *memory.slots.values(),
        memory.kept,
        memory.g,
        memory.A_bar,
        memory.terms,
        memory.sums,
    ]
    return sum(math.prod(array.shape) * jnp.dtype(array.dtype).itemsize for array in arrays)


def run_block(
    x: dict[str, Any],
    bars: dict[str, Any],
    *,
    memory: Memory,
    with_softplus: bool,
    with_resets: bool,
) -> None:
    """The kernel: `x` and `bars` lie in global memory.

    What a thread writes for its own channels and reads again needs no barrier: g, A_bar, its places
    in the slots. All threads meet (`commit_smem`, or the barrier in `wait_smem_to_gmem`) where one
    thread's writes, or a copy, meet others' reads:

    - `terms` is written by channel and read by row: they meet before the reading, and before the
      next writing.
    - Cotangents of tokens take their inputs' places in the slot. They and `sums` are copied out
      after all have met at the chunk's end. Before the slot is filled again, and `sums` written
      again, these copies must have read them: that wait comes after the next chunk's first work,
      which hides it.
    - A slot is filled again one chunk after its last use, `kept` at the end of the chunk that used
      it: either way after all have met at that chunk's end.
    """
    row, block = lax.axis_index("row"), lax.axis_index("block")
    states, width = memory.kept.shape
    chunks, groups = x["kept"].shape[1], states // STATES_TOGETHER
    mine = pl.ds(block * width, width)
    slots, layout = memory.slots, channel_layout()
    zero = plgpu.layout_cast(jnp.zeros((BLOCK,), jnp.float32), layout)
    owns = [pl.ds(start, BLOCK) for start in range(0, width, BLOCK)]
    channels = [pl.ds(block * width + start, BLOCK) for start in range(0, width, BLOCK)]
    lanes = [
        Lane(own, *(load(x[name].at[part], layout) for name in ("D", "delta_bias")))
        for own, part in zip(owns, channels, strict=True)
    ]

    def fetch(chunk: Any, place: Any) -> None:
        tokens = pl.ds(chunk * KEEP_EVERY, KEEP_EVERY)
        for name, target in slots.items():
            source = x[name].at[row, chunk] if name == "shared" else x[name].at[row, tokens, mine]
            plgpu.copy_gmem_to_smem(source, target.at[place], memory.arrived.at[place])

    def fetch_kept(chunk: Any) -> None:
        source = x["kept"].at[row, chunk, :, mine]
        plgpu.copy_gmem_to_smem(source, memory.kept, memory.kept_arrived)

    def start_state(n: jax.Array, _: None) -> None:
        for own, part in zip(owns, channels, strict=True):
            memory.g[n, own] = load(x["state_bar"].at[row, n, part], layout)
            memory.A_bar[n, own] = zero

    def load_rates(group: Any) -> Rates:
        first = group * STATES_TOGETHER
        return [
            [load(x["A"].at[first + i, part], layout) for part in channels]
            for i in range(STATES_TOGETHER)
        ]

    def run_chunk(i: jax.Array, carry: tuple[list[Totals], Rates]) -> tuple[list[Totals], Rates]:
        totals, rates = carry
        chunk, place = chunks - 1 - i, lax.rem(i, 2)
        slot = Slot(slots, place, states, with_softplus, with_resets)
        plgpu.barrier_wait(memory.arrived.at[place])
        moves = [prepare(slot, lane) for lane in lanes]
        plgpu.wait_smem_to_gmem(0, wait_read_only=True)

        @pl.when(i + 1 < chunks)
        def _() -> None:
            fetch(chunk - 1, 1 - place)

        def run_states(
            group: jax.Array, carry: tuple[list[Reads], Rates]
        ) -> tuple[list[Reads], Rates]:
            reads, rates = carry
            # One group ahead, since there is no room for A beside shared memory: it may have to
            # come from the second cache each time.
            next_rates = load_rates(lax.rem(group + 1, groups))
            reads = _write_terms(rates, memory, slot, moves, reads, group * STATES_TOGETHER)
            plgpu.commit_smem()
            tile = load(memory.terms.at[:, pl.ds(0, BLOCK)], ROWS_LAYOUT)
            plgpu.commit_smem()
            memory.sums[group] = jnp.sum(tile, axis=1)
            return reads, next_rates

        plgpu.barrier_wait(memory.kept_arrived)
        no_reads = [zero_reads() for _ in lanes]
        reads, rates = lax.fori_loop(0, groups, run_states, (no_reads, rates))
        totals = [
            finish(slot, *of_lane) for of_lane in zip(lanes, moves, reads, totals, strict=True)
        ]
        plgpu.commit_smem()
        tokens = pl.ds(chunk * KEEP_EVERY, KEEP_EVERY)
        for name in ("u", "delta", "z"):
            if name in bars:
                plgpu.copy_smem_to_gmem(slots[name].at[place], bars[name].at[row, tokens, mine])
        plgpu.copy_smem_to_gmem(memory.sums, bars["BC"].at[block, row, chunk])

        @pl.when(i + 1 < chunks)
        def _() -> None:
            fetch_kept(chunk - 1)

        return totals, rates

    fetch(chunks - 1, 0)
    fetch_kept(chunks - 1)
    lax.fori_loop(0, states, start_state, None)
    no_totals = [Totals(zero, zero) for _ in lanes]
    totals, _ = lax.fori_loop(0, chunks, run_chunk, (no_totals, load_rates(0)))
    for part, total in zip(channels, totals, strict=True):
        bars["D"][row, part] = total.D_bar
        bars["delta_bias"][row, part] = total.bias_bar
    # All have met since g and A_bar were last written: at the last chunk's end.
    plgpu.copy_smem_to_gmem(memory.g, bars["initial_state"].at[row, :, mine])
    plgpu.copy_smem_to_gmem(memory.A_bar, bars["A"].at[row, :, mine])
    plgpu.wait_smem_to_gmem(0)


def _write_terms(
    rates: Rates,
    memory: Memory,
    slot: Slot,
    moves: list[Moves],
    reads: list[Reads],
    first: jax.Array,
) -> list[Reads]:
    """Run STATES_TOGETHER states, from the `first`, and write a thread's terms, a row each."""
    reads = list(reads)
    for i in range(STATES_TOGETHER):
        n = first + i
        B, C = slot.of_all(n), slot.of_all(slot.states + n)
        terms = []
        for k in range(len(reads)):
            own = pl.ds(k * BLOCK, BLOCK)
            places = (ref.at[n, own] for ref in (memory.kept, memory.g, memory.A_bar))
            state = State(rates[i][k], *places)
            reads[k], of_lane = run_state(state, B, C, moves[k], reads[k])
            terms.append([*of_lane.B, *of_lane.C])
        for j, of_token in enumerate(zip(*terms, strict=True)):
            row = 2 * KEEP_EVERY * i + j
            memory.terms[row, pl.ds(0, BLOCK)] = sum(of_token[1:], of_token[0])
    return reads
