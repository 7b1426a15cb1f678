"""Length buckets: the few lengths that batches are padded to, so that little is compiled."""

from bisect import bisect_left
from collections.abc import Sequence

_FINEST = 16


def length_buckets(max_length: int) -> tuple[int, ...]:
    """Rising lengths that end in `max_length`, spaced so that little padding is computed.

    Steps are 16 tokens up to 128, and from there a quarter of the power of two below: 160, 192,
    224, 256, 320, ... So the longest sequence of a batch is padded by a quarter at the most (from
    64 tokens on), and 512 tokens take 16 compilations.
    """
    if max_length < 1:
        raise ValueError(f"max_length must be at least 1, got {max_length}")
    buckets = []
    length = _FINEST
    while length < max_length:
        buckets.append(length)
        length += max(_FINEST, (1 << (length.bit_length() - 1)) // 4)
    return (*buckets, max_length)


def fine_buckets(longest: int) -> tuple[int, ...]:
    """Rising lengths that end in `longest`: by 2 up to 32, then by 4, so that little is padding.

    For a query behind many documents, where each token of padding runs as often.

    >>> fine_buckets(9), fine_buckets(40)[-4:]
    ((2, 4, 6, 8, 9), (30, 32, 36, 40))
    """
    fine, coarse = range(2, min(longest, 33), 2), range(36, longest, 4)
    return (*fine, *coarse, longest)


def few_buckets(longest: int) -> tuple[int, ...]:
    """Lengths that end in `longest`: from 16 on, powers of two and what is halfway between them.

    For a side of a batch where something large is compiled for each pair of both sides' buckets.

    >>> few_buckets(50)
    (16, 24, 32, 48, 50)
    """
    buckets = []
    length = _FINEST
    while length < longest:
        buckets += [length, length + length // 2]
        length *= 2
    return (*(bucket for bucket in buckets if bucket < longest), longest)


def bucket_for(length: int, buckets: Sequence[int]) -> int:
    """The smallest bucket that holds `length` tokens."""
    index = bisect_left(buckets, length)
    if index == len(buckets):
        raise ValueError(f"a sequence of {length} tokens exceeds the largest bucket, {buckets[-1]}")
    return buckets[index]
