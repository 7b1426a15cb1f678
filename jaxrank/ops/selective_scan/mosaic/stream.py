"""How a kernel of `selective_scan` gets its tokens: chunk by chunk, one chunk ahead of the work.

A chunk is KEEP_EVERY tokens. Shared memory has two slots. While a block works on the chunk in one
of them, the copy engine fills the other one:

    start(0)
    for each chunk:  start(chunk + 1);  wait for chunk;  work;  barrier

The barrier is the kernel's own to place (see `release`): only when all threads have read a slot for
the last time may it be filled again.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from jaxrank.ops.selective_scan.mosaic.operands import KEEP_EVERY


class Streams(NamedTuple):
    """Arrays by token, whole in global memory or a chunk in each slot of shared memory."""

    by_channel: tuple[Any, ...]  # (B, L, D) or (2, KEEP_EVERY, width)
    shared: Any  # (B, L, columns) or (2, KEEP_EVERY, columns): what all channels share, float32


class Place(NamedTuple):
    """Which part of the arrays is a block's: one row of the batch and some of the channels."""

    row: jax.Array
    channels: Any  # a slice


def join_columns(by_state: tuple[jax.Array, ...], forget: jax.Array | None) -> jax.Array:
    """Put arrays (B, L, N) side by side, and `forget` behind them: one copy brings all of it.

    A row takes a multiple of 16 bytes, as the copy engine asks, and a chunk's one of 128.
    """
    columns = list(by_state)
    if forget is not None:
        columns.append(jnp.pad(forget[:, :, None], ((0, 0), (0, 0), (0, 3))))
    return jnp.concatenate(columns, axis=2)


def slot_types(streams: Streams, width: int) -> Streams:
    """The shared memory that the chunks of `streams` take."""
    return Streams(
        tuple(plgpu.SMEM((2, KEEP_EVERY, width), array.dtype) for array in streams.by_channel),
        plgpu.SMEM((2, KEEP_EVERY, streams.shared.shape[2]), streams.shared.dtype),
    )


def arrival_type(streams: Streams) -> Any:
    """A barrier a slot, which lets through when all copies of the chunk have arrived."""
    return plgpu.Barrier(num_arrivals=len(streams.by_channel) + 1, num_barriers=2)


def start(
    streams: Streams, slots: Streams, arrived: Any, place: Place, chunk: Any, slot: Any
) -> None:
    """Start to copy chunk number `chunk` into `slot`."""
    part = pl.ds(chunk * KEEP_EVERY, KEEP_EVERY)
    for source, target in zip(streams.by_channel, slots.by_channel, strict=True):
        part_of_source = source.at[place.row, part, place.channels]
        plgpu.copy_gmem_to_smem(part_of_source, target.at[slot], arrived.at[slot])
    plgpu.copy_gmem_to_smem(
        streams.shared.at[place.row, part, :], slots.shared.at[slot], arrived.at[slot]
    )


def read_row(row: Any, columns: int, *, interpreted: bool) -> list[jax.Array]:
    """The numbers of a row of `shared`, each read by all threads at once.

    Where a kernel is interpreted every access calls back to Python, so all are read in one.
    """
    numbers = row[...] if interpreted else row
    return [numbers[column] for column in range(columns)]


def release() -> None:
    """Wait until all threads of the block have read what they needed of their slots."""
    plgpu.commit_smem()
