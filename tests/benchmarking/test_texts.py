"""Pairs of real texts: what they cannot be drawn from is named."""

import pytest

from jaxrank.benchmarking.texts import draw_pairs
from jaxrank.errors import InputError


def test_queries_come_in_turn_each_with_a_document() -> None:
    pairs = draw_pairs(["a", "b"], {"1": "x", "2": "y"}, 3)
    assert [query for query, _ in pairs] == ["a", "b", "a"]
    assert {document for _, document in pairs} <= {"x", "y"}


def test_no_pairs_and_an_empty_collection_are_two_faults() -> None:
    with pytest.raises(InputError, match="--pairs: got 0"):
        draw_pairs(["a"], {"1": "x"}, 0)
    with pytest.raises(InputError, match="--collection: has 1 queries and 0 documents"):
        draw_pairs(["a"], {}, 3)
