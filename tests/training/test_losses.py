"""InfoNCE and group accuracy against their formulas in float64."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrank.training import losses
from jaxrank.training.losses import group_accuracy, info_nce


def info_nce_float64(scores: np.ndarray, where: np.ndarray) -> float:
    values = []
    for row, is_there in zip(scores.astype(np.float64), where, strict=True):
        if is_there[0]:
            values.append(np.log(np.exp(row[is_there]).sum()) - row[0])
    return float(np.mean(values))


def random_scores(groups: int = 5, candidates: int = 8) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(groups, candidates), scale=3).astype(np.float32)


def test_info_nce_equals_the_formula_in_float64():
    scores = random_scores()
    expected = info_nce_float64(scores, np.ones(scores.shape, bool))
    np.testing.assert_allclose(info_nce(jnp.asarray(scores)), expected, rtol=1e-6)


def test_gradient_is_softmax_minus_the_positive():
    scores = random_scores()
    exponentials = np.exp(scores.astype(np.float64))
    expected = exponentials / exponentials.sum(axis=1, keepdims=True)
    expected[:, 0] -= 1
    gradient = jax.grad(info_nce)(jnp.asarray(scores))
    np.testing.assert_allclose(gradient, expected / len(scores), atol=1e-7)


@pytest.mark.parametrize("masked_score", [0.0, 1e30, np.inf, np.nan])
def test_masked_candidates_count_neither_in_loss_nor_gradient(masked_score: float):
    scores = random_scores()
    where = np.ones(scores.shape, bool)
    where[1, 3:] = where[2, 1:] = where[4, :] = False
    expected = info_nce_float64(scores, where)
    scores[~where] = masked_score
    loss, gradient = jax.value_and_grad(info_nce)(jnp.asarray(scores), where=jnp.asarray(where))
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert np.isfinite(gradient).all()
    assert (np.asarray(gradient)[~where] == 0).all()
    assert (np.asarray(gradient)[where] != 0).sum() == 8 + 3 + 8  # row 2 has no rival


def test_info_nce_is_float32_for_bfloat16_scores():
    scores = jnp.asarray(random_scores(), jnp.bfloat16)
    loss = info_nce(scores)
    assert loss.dtype == jnp.float32
    rounded = np.asarray(scores.astype(jnp.float32))
    np.testing.assert_allclose(loss, info_nce_float64(rounded, rounded == rounded), rtol=1e-6)


def test_large_scores_do_not_overflow():
    assert float(info_nce(jnp.array([[1e4, -1e4]]))) == 0.0
    assert float(info_nce(jnp.array([[-1e4, 1e4]]))) == 2e4


def test_no_group_gives_a_loss_of_zero():
    assert float(info_nce(jnp.zeros((2, 3)), where=jnp.zeros((2, 3), bool))) == 0.0


def test_group_accuracy_counts_ties_and_nan_as_lost():
    scores = jnp.array([[2.0, 1.0, 1.0], [1.0, 1.0, 0.0], [jnp.nan, 0.0, 0.0], [0.0, -1.0, 5.0]])
    where = jnp.ones((4, 3), bool).at[3, 2].set(False)
    assert float(group_accuracy(scores)) == 0.25
    assert float(group_accuracy(scores, where=where)) == 0.5


def test_docstring_examples_hold():
    result = doctest.testmod(losses)
    assert result.attempted >= 4
    assert result.failed == 0
