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


def bucket_for(length: int, buckets: Sequence[int]) -> int:
    """The smallest bucket that holds `length` tokens."""
    index = bisect_left(buckets, length)
    if index == len(buckets):
        raise ValueError(f"a sequence of {length} tokens exceeds the largest bucket, {buckets[-1]}")
    return buckets[index]
