"""Buckets are few, end at the maximum, and waste little."""

import doctest
import itertools

import pytest

from jaxrank.text import buckets as module
from jaxrank.text.buckets import bucket_for, length_buckets


def test_buckets_rise_to_the_maximum_and_waste_at_most_a_quarter() -> None:
    buckets = length_buckets(512)
    assert buckets[-1] == 512
    assert len(buckets) == 16
    assert list(buckets) == sorted(set(buckets))
    steps = [(low, high) for low, high in itertools.pairwise(buckets) if low >= 64]
    assert all(high - low <= low / 4 for low, high in steps)


@pytest.mark.parametrize("length", [1, 15, 16, 17, 100, 500])
def test_the_last_bucket_is_the_maximum_whatever_it_is(length: int) -> None:
    buckets = length_buckets(length)
    assert buckets[-1] == length
    assert all(bucket_for(n, buckets) >= n for n in range(1, length + 1))


def test_a_sequence_beyond_the_largest_bucket_is_refused() -> None:
    with pytest.raises(ValueError, match="17 tokens exceeds the largest bucket, 16"):
        bucket_for(17, (8, 16))


def test_buckets_of_sides_are_as_their_examples_say() -> None:
    assert doctest.testmod(module) == doctest.TestResults(failed=0, attempted=2)
