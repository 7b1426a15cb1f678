"""What every family's suite checks of packed rows: the same numbers as padded, no cross-talk."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrank.models.module import RerankerModule, parameters
from jaxrank.models.packing import Packing
from tests.families.comparison import Compared, to_jax

# The promised bound, of each score and of each parameter's gradient as a share of its largest
# number. Float32 sums in another order were up to 2e-6 apart.
EQUAL = 1e-5
# Which texts of the compared batch share a row. The first row is full, and longer than a text may
# be in several of the models; the second is mostly padding, with two places for texts left empty.
ROWS = ((1, 0, 2), (3,))
PLACES = np.array([1, 0, 2, 3])  # of texts 0, 1, 2, 3 among the six
Scored = tuple[dict[str, jax.Array], np.ndarray]
"""Gradient of every parameter, for the scores weighed at random, and the scores."""


def pack(batch: dict[str, np.ndarray], rows: Sequence[Sequence[int]]) -> dict[str, Any]:
    """What `score_packed` takes: those texts of a padded batch, row by row."""
    sizes = batch["mask"].sum(axis=1)
    shape = len(rows), max(sum(sizes[text] for text in row) for row in rows)
    tokens = {"input_ids": np.ones(shape, np.int32), "token_type_ids": np.zeros(shape, np.int32)}
    segment_ids, positions = np.zeros((2, *shape), np.int32)
    first, last = np.zeros((2, len(rows), max(map(len, rows))), np.int32)
    for r, row in enumerate(rows):
        begin = 0
        for t, text in enumerate(row):
            end = begin + sizes[text]
            for name, array in tokens.items():
                array[r, begin:end] = batch[name][text, : sizes[text]]
            segment_ids[r, begin:end] = t + 1
            positions[r, begin:end] = np.arange(sizes[text])
            first[r, t], last[r, t] = begin, end - 1
            begin = end
    packing = Packing(*(jnp.asarray(array) for array in (segment_ids, positions, first, last)))
    return to_jax(tokens) | {"packing": packing}


class PackedSuite:
    """Part of FamilySuite; `packed_name` is one checkpoint for each of the family's heads."""

    @pytest.fixture(scope="class")
    @classmethod
    def get_packed(cls, get_compared: Any) -> Any:
        """Checkpoint's name -> it, and its packed scores with gradients, compiled once."""

        def score(module: RerankerModule, batch: dict[str, Any]) -> jax.Array:
            return module.score_packed(**batch).reshape(-1)[PLACES]

        return cache(lambda name: (get_compared(name), _differentiate(get_compared(name), score)))

    def test_packed_texts_have_the_scores_and_gradients_of_padded_ones(
        self, get_packed: Any, packed_name: str
    ):
        compared, score_packed = get_packed(packed_name)
        score_padded = _differentiate(compared, lambda module, batch: module(**batch))
        want, want_scores = score_padded(to_jax(compared.batch))
        got, got_scores = score_packed(pack(compared.batch, ROWS))
        assert np.abs(got_scores - want_scores).max() <= EQUAL * np.abs(want_scores).min()
        assert np.ptp(want_scores) > 1e-3, "equal scores show nothing"
        largest = max(np.abs(gradient).max() for gradient in want.values())
        for path, gradient in want.items():
            # Some gradients are zero but for rounding.
            scale = max(np.abs(gradient).max(), 1e-3 * largest)
            assert np.abs(got[path] - gradient).max() <= EQUAL * scale, path

    def test_another_text_changes_no_score_of_those_that_share_its_row(
        self, get_packed: Any, packed_name: str
    ):
        compared, score_packed = get_packed(packed_name)
        _, plain = score_packed(pack(compared.batch, ROWS))
        for text in range(len(PLACES)):
            other = {name: array.copy() for name, array in compared.batch.items()}
            ids = other["input_ids"][text]
            other["input_ids"][text] = np.where(ids > 2, 3 + (ids + 7) % 50, ids)
            _, scores = score_packed(pack(other, ROWS))
            assert np.flatnonzero(scores != plain).tolist() == [text]  # bit by bit


def _differentiate(
    compared: Compared, score: Callable[[RerankerModule, dict[str, Any]], jax.Array]
) -> Callable[[dict[str, Any]], Scored]:
    graph, state = nnx.split(compared.module)
    weights = jax.random.normal(jax.random.key(0), PLACES.shape)

    def weigh(state: Any, batch: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
        scores = score(nnx.merge(graph, state), batch)
        return jnp.sum(scores * weights), scores

    gradients_of = jax.jit(jax.grad(weigh, has_aux=True))

    def run(batch: dict[str, Any]) -> Scored:
        gradients, scores = gradients_of(state, batch)
        return parameters(nnx.merge(graph, gradients)), np.asarray(scores)

    return run
