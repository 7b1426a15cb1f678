"""Packing: which texts share a row of a fixed length, and the arrays that say so to a model."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int32, Int64


class Places(NamedTuple):
    """Where each of n texts stands in rows of one length."""

    row: Int64[np.ndarray, " n"]
    number: Int64[np.ndarray, " n"]
    """Number of the text in its row, from 0 on."""
    start: Int64[np.ndarray, " n"]
    """Place in the row of the text's first token."""

    @property
    def num_rows(self) -> int:
        """How many rows there are."""
        return int(self.row.max(initial=-1)) + 1


def pack(lengths: Int[np.ndarray, " n"], row_length: int, *, texts: int | None = None) -> Places:
    """First-fit decreasing: the longest text first, each into the first row that has room for it.

    Without a limit of texts a row, it would need at most 11/9 of the fewest possible rows, and 6/9
    of one (Dósa 2007). With the limit this holds for the rows that hold fewer than T texts; those
    that hold T come on top, at most a T-th of the number of texts. Equal lengths keep their order,
    so the result depends on nothing but the lengths.

    >>> places = pack(np.array([300, 500, 200, 12]), 512)
    >>> places.row.tolist(), places.number.tolist(), places.start.tolist()
    ([1, 0, 1, 0], [0, 0, 1, 1], [0, 0, 300, 500])

    Args:
        texts: T, the most texts of a row. Default: `texts_per_row(row_length)`.

    Raises:
        ValueError: a text that is longer than a row.
    """
    texts = texts_per_row(row_length) if texts is None else texts
    if lengths.max(initial=0) > row_length:
        raise ValueError(f"a text of {lengths.max()} tokens does not fit into rows of {row_length}")
    count = len(lengths)
    room = np.full(count, row_length, np.int64)
    used, held = [0] * count, [0] * count
    row, number, start = (np.zeros(count, np.int64) for _ in range(3))
    num_rows = 1
    for text in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[text])
        # One row more than there are: a row without texts has room for any.
        here = int((room[: num_rows + 1] >= length).argmax())
        row[text], number[text], start[text] = here, held[here], used[here]
        used[here] += length
        held[here] += 1
        room[here] = row_length - used[here] if held[here] < texts else -1
        num_rows = max(num_rows, here + 1)
    return Places(row, number, start)


def balance(tokens: Int[np.ndarray, " Q"], shares: int) -> list[int]:
    """An order of groups in which equal shares, cut one after the other, hold about equal tokens.

    The largest group first, each to the share with the fewest tokens that is not yet full; inside a
    share the groups keep their order. One share keeps all as they are.

    >>> balance(np.array([9, 8, 1, 2]), 2)
    [0, 2, 1, 3]
    """
    size = len(tokens) // shares
    members: list[list[int]] = [[] for _ in range(shares)]
    held = np.zeros(shares)
    for group in np.argsort(-tokens, kind="stable").tolist():
        share = int(held.argmin())
        members[share].append(group)
        held[share] = held[share] + tokens[group] if len(members[share]) < size else np.inf
    return [group for share in members for group in sorted(share)]


def texts_per_row(row_length: int) -> int:
    """T, the places for texts of a row: one for 16 tokens, since hardly a pair is shorter.

    The same for every batch, so that it adds no shape to compile. A place costs a head for one
    vector and a token a whole model, so those that stay empty cost next to nothing.
    """
    return max(4, row_length // 16)


def round_up_rows(num_rows: int, multiple: int = 1) -> int:
    """The number of rows of an array for so many: at most an eighth more, and a multiple.

    Steps are an eighth of the power of two below, so that few shapes are compiled: 16, 18, 20, ...,
    32, 36, ...

    >>> [round_up_rows(rows) for rows in (0, 1, 9, 17, 33, 100)]
    [1, 1, 9, 18, 36, 104]
    >>> round_up_rows(17, multiple=8)
    24
    """
    num_rows = max(num_rows, 1)
    step = max(1, (1 << (num_rows.bit_length() - 1)) // 8)
    rounded = -(-num_rows // step) * step
    return -(-rounded // multiple) * multiple


def packing_arrays(
    places: Places,
    lengths: Int[np.ndarray, " n"],
    *,
    rows: int,
    row_length: int,
    texts: int,
) -> dict[str, Int32[np.ndarray, "rows _"]]:
    """`segment_ids`, `positions`, `first` and `last` of `models.packing.Packing`, as int32 arrays.

    Args:
        lengths: of the texts, none of them 0.
        rows: R, at least `places.num_rows`; the rows beyond hold padding.
        row_length: L.
        texts: T, as `pack` was given.
    """
    segment_ids = np.zeros((rows, row_length), np.int32)
    positions = np.zeros((rows, row_length), np.int32)
    flat_segments, flat_positions = segment_ids.reshape(-1), positions.reshape(-1)
    count_up = np.arange(row_length, dtype=np.int32)
    starts = places.row * row_length + places.start
    numbers = places.number.tolist()
    for start, length, number in zip(starts.tolist(), lengths.tolist(), numbers, strict=True):
        flat_segments[start : start + length] = number + 1
        flat_positions[start : start + length] = count_up[:length]
    first, last = np.zeros((rows, texts), np.int32), np.zeros((rows, texts), np.int32)
    first[places.row, places.number] = places.start
    last[places.row, places.number] = places.start + lengths - 1
    return {"segment_ids": segment_ids, "positions": positions, "first": first, "last": last}
