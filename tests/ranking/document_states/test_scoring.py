"""Scores from states are the scores of the pairs."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrank.errors import InputError
from jaxrank.models.module import build_module
from jaxrank.models.module import parameters as parameters_of
from jaxrank.ranking.document_states.encoding import DocumentEncoder
from jaxrank.ranking.document_states.formats import StateDType
from jaxrank.ranking.document_states.memory import MemoryStates
from jaxrank.ranking.document_states.on_device import DeviceStates
from jaxrank.ranking.document_states.scoring import StateScorer, row_buckets
from jaxrank.ranking.scoring import Scorer
from jaxrank.text.buckets import bucket_for, fine_buckets
from tests.ranking.document_states.tiny_models import (
    DOCUMENTS,
    QUERY,
    TEXT,
    make_module,
    make_pairs,
    make_sides,
    make_states,
)

FAMILIES = ["mamba", "mamba2", "opt"]
NAMES = list(DOCUMENTS)


@cache
def make_scorer(family: str) -> StateScorer:
    return StateScorer(make_module(family), make_sides(), batch_size=6)


@cache
def full_scores(family: str) -> np.ndarray:
    scorer = Scorer(make_module(family), pad_token_id=0, max_length=TEXT.max_length, batch_size=6)
    return scorer.score(make_pairs().encode([(QUERY, text) for text in DOCUMENTS.values()]))


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_the_pairs_read_at_once(family: str) -> None:
    wanted = full_scores(family)
    assert np.std(wanted) > 1e-3
    scores = make_scorer(family).score(QUERY, make_states(family), NAMES)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, wanted, atol=1e-5, rtol=0)


def test_order_and_batches_change_no_score_by_more_than_1e_5() -> None:
    scorer, states, wanted = make_scorer("mamba"), make_states("mamba"), full_scores("mamba")
    order = [3, 0, 5, 1, 4, 2, 0]  # six and one
    scores = scorer.score(QUERY, states, [NAMES[place] for place in order])
    np.testing.assert_allclose(scores, wanted[order], atol=1e-5, rtol=0)
    (alone,) = scorer.score(QUERY, states, ["middle"])
    np.testing.assert_allclose(alone, wanted[3], atol=1e-5, rtol=0)


def test_rows_beyond_the_documents_change_no_score() -> None:
    states, wanted = make_states("opt"), full_scores("opt")
    scorer = StateScorer(make_module("opt"), make_sides(), batch_size=10)
    order = [*range(6), *range(6), *range(6), 0]  # ten, and nine with a row that means nothing
    assert bucket_for(len(order) - 10, row_buckets(10)) == 10
    scores = scorer.score(QUERY, states, [NAMES[place] for place in order])
    np.testing.assert_allclose(scores, wanted[order], atol=1e-5, rtol=0)


# Of a number bfloat16 keeps 8 bits, so it errs by 2^-9 at most; eight-bit integers by 1/254 of the
# largest of their row. Errors of many numbers average out: a tenth of the spread is far above.
@pytest.mark.parametrize(
    ("family", "dtype", "bound"), [("mamba", "int8", 0.1), ("mamba2", "bfloat16", 0.01)]
)
def test_smaller_types_are_near(family: str, dtype: StateDType, bound: float) -> None:
    wanted = full_scores(family)
    scores = make_scorer(family).score(QUERY, make_states(family, dtype), NAMES)
    assert np.abs(scores - wanted).max() <= bound * np.std(wanted)
    assert not np.array_equal(scores, wanted)


@pytest.mark.parametrize(("family", "dtype"), [("mamba", "float32"), ("opt", "int8")])
def test_states_on_the_device_give_the_same_scores(family: str, dtype: StateDType) -> None:
    states = make_states(family, dtype)
    held = DeviceStates(states.select(NAMES[::-1]))
    assert len(held) == len(NAMES)
    assert held.nbytes >= states.nbytes
    scorer = make_scorer(family)
    scores = scorer.score(QUERY, held, NAMES)
    np.testing.assert_allclose(scores, scorer.score(QUERY, states, NAMES), atol=1e-6, rtol=0)
    with pytest.raises(InputError, match="device: no state of document 'unknown'; it is to be enc"):
        scorer.score(QUERY, held, ["x", "unknown"])


def test_documents_are_moved_to_the_device_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jaxrank.ranking.document_states.on_device._DOCUMENTS_AT_ONCE", 4)
    states = make_states("mamba")
    held = DeviceStates(states).held
    gathered = states.gather(NAMES)
    np.testing.assert_array_equal(held.lengths, gathered.lengths)
    for name, values in gathered.arrays.items():
        np.testing.assert_array_equal(held.arrays[name], values)


def test_a_bucket_of_sizes_is_compiled_once() -> None:
    queries = ["what is acne now", "what is acne or gout"]
    lengths = [len(ids) for ids in make_sides().queries(queries)]
    assert len(set(lengths)) > 1
    assert len({bucket_for(length, fine_buckets(50)) for length in lengths}) == 1
    scorer, states = make_scorer("mamba"), make_states("mamba")
    before = scorer._score._cache_size()
    for query in queries:
        for count in (6, 5):
            scorer.score(query, states, NAMES[:count])
    assert scorer._score._cache_size() == before + 2


def test_a_bfloat16_module_scores_from_float32_states() -> None:
    """A store of a precise model under a quick one: what is kept is cast to what is computed in."""
    exact = make_module("mamba")
    module = build_module(exact.config, parameters_of(exact), dtype=jnp.bfloat16)
    encoder = DocumentEncoder(module, make_sides(), batch_size=6)
    assert encoder.computed_in == "bfloat16"
    states = MemoryStates(encoder.identity, "float32", encoder.computed_in)
    states.add(encoder.encode(list(DOCUMENTS.items())))
    assert states.records(["x"])[0].arrays["recurrence"].dtype == np.float32
    scorer, wanted = StateScorer(module, make_sides(), batch_size=6), full_scores("mamba")
    # A number of 8 bits errs by 2^-9 of itself: a score, by few of such errors in what it sums up.
    bound = 2.0**-7 * np.abs(wanted).max()
    assert bound < 0.2 * np.ptp(wanted)
    for source in (states, make_states("mamba")):
        scores = scorer.score(QUERY, source, NAMES)
        assert scores.dtype == np.float32
        assert 0 < np.abs(scores - wanted).max() <= bound


def test_nothing_to_score_gives_nothing() -> None:
    assert make_scorer("mamba").score(QUERY, make_states("mamba"), []).shape == (0,)


def test_a_score_that_is_not_finite_is_refused_by_its_document() -> None:
    # As a damaged file would have it that nobody verifies: records themselves are checked.
    states = make_states("mamba")
    gathered = states.gather(NAMES)
    gathered.arrays["recurrence"][:, 2] = np.nan

    class Damaged(MemoryStates):
        def gather(self, document_ids, **sizes):
            return gathered

    damaged = Damaged(states.identity, states.dtype, states.computed_in)
    with pytest.raises(InputError, match="document 'short': its score for the query 'what is gout"):
        make_scorer("mamba").score(QUERY, damaged, NAMES)


def test_states_of_another_model_are_refused_by_what_differs() -> None:
    module = make_module("mamba")
    changed = {name: jnp.asarray(a) * 1.001 for name, a in parameters_of(module).items()}
    scorer = StateScorer(build_module(module.config, changed), make_sides())
    with pytest.raises(InputError, match=r"made for another model: weights .*, the model has"):
        scorer.score(QUERY, make_states("mamba"), NAMES)
    with pytest.raises(InputError, match="family 'mamba2', the model has 'mamba'"):
        make_scorer("mamba").score(QUERY, DeviceStates(make_states("mamba2")), NAMES)


def test_a_document_without_a_state_is_named() -> None:
    with pytest.raises(InputError, match="no state of document 'unknown'"):
        make_scorer("mamba").score(QUERY, make_states("mamba"), ["x", "unknown"])


@pytest.mark.parametrize("size", [1, 2, 7, 32, 100])
def test_buckets_pad_little_and_end_in_the_largest_size(size: int) -> None:
    for buckets in (row_buckets(size), fine_buckets(size)):
        assert buckets[-1] == size
        assert list(buckets) == sorted(set(buckets))
    for count in range(1, size + 1):
        assert min(b for b in row_buckets(size) if b >= count) <= max(1, 1.25 * count)
        step = 2 if count <= 32 else 4
        assert min(b for b in fine_buckets(size) if b >= count) - count < step


def test_two_gatherings_share_no_memory() -> None:
    states = make_states("mamba")
    first, second = states.gather(NAMES), states.gather(NAMES)
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert not np.shares_memory(one, other)
