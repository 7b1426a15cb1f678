"""Every loss and its gradient against its formula, in float64 by NumPy, group after group."""

import doctest
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrank.training import losses
from jaxrank.training.losses import (
    LossConfig,
    LossName,
    group_accuracy,
    info_nce,
    kl_distillation,
    listwise_softmax,
    make_loss,
    margin_mse,
    ranknet,
    targets_of,
)


def log_softmax(values: np.ndarray) -> np.ndarray:
    return values - np.log(np.exp(values).sum())


def info_nce_of_group(scores: np.ndarray, targets: np.ndarray) -> float:
    return -log_softmax(scores)[0]


def listwise_softmax_of_group(scores: np.ndarray, labels: np.ndarray) -> float:
    return -(labels @ log_softmax(scores)) / labels.sum() if labels.any() else 0.0


def ranknet_of_group(scores: np.ndarray, labels: np.ndarray) -> float:
    pairs = [
        (i, j) for i in range(len(scores)) for j in range(len(scores)) if labels[i] > labels[j]
    ]
    values = [np.log1p(np.exp(scores[j] - scores[i])) for i, j in pairs]
    return sum(values) / max(1, len(values))


def margin_mse_of_group(scores: np.ndarray, teacher: np.ndarray) -> float:
    errors = [(scores[0] - s - teacher[0] + t) ** 2 for s, t in zip(scores[1:], teacher[1:])]  # noqa: B905
    return sum(errors) / max(1, len(errors))


def kl_of_group(scores: np.ndarray, teacher: np.ndarray, temperature: float = 1.0) -> float:
    wanted, found = log_softmax(teacher / temperature), log_softmax(scores / temperature)
    return temperature**2 * (np.exp(wanted) @ (wanted - found))


def without_targets(
    scores: jax.Array, targets: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    return info_nce(scores, where=where)


Formula = Callable[[np.ndarray, np.ndarray], float]
CASES: dict[str, tuple[Callable[..., jax.Array], Formula]] = {
    "info_nce": (without_targets, info_nce_of_group),
    "listwise_softmax": (listwise_softmax, listwise_softmax_of_group),
    "ranknet": (ranknet, ranknet_of_group),
    "margin_mse": (margin_mse, margin_mse_of_group),
    "kl_distillation": (kl_distillation, kl_of_group),
    "kl_at_3": (
        partial(kl_distillation, temperature=3.0),
        partial(kl_of_group, temperature=3.0),
    ),
}
COMPILED = {name: jax.jit(jax.value_and_grad(loss)) for name, (loss, _) in CASES.items()}
BY_LABELS = ("listwise_softmax", "ranknet")
every_loss = pytest.mark.parametrize("name", list(CASES))


def expected_loss(
    formula: Formula, scores: np.ndarray, targets: np.ndarray, where: np.ndarray
) -> float:
    rows = zip(scores.astype(np.float64), targets.astype(np.float64), where, strict=True)
    values = [formula(score[real], target[real]) for score, target, real in rows if real[0]]
    return float(np.mean(values))


def expected_gradient(
    formula: Formula, scores: np.ndarray, targets: np.ndarray, where: np.ndarray
) -> np.ndarray:
    """Central differences; in float64 they are good to about 1e-9."""
    gradient = np.zeros(scores.shape)
    for place in np.argwhere(where & where[:, :1]):
        ends = []
        for step in (1e-5, -1e-5):
            moved = scores.astype(np.float64)
            moved[tuple(place)] += step
            ends.append(expected_loss(formula, moved, targets, where))
        gradient[tuple(place)] = (ends[0] - ends[1]) / 2e-5
    return gradient


def draw(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Scores and targets of one shape throughout, so that each loss is compiled once."""
    random = np.random.default_rng(0)
    scores = random.normal(size=(5, 6), scale=2)
    if name in BY_LABELS:
        targets = random.integers(0, 4, scores.shape).astype(float)
        targets[:, 0] = 3
    else:
        targets = random.normal(size=scores.shape, scale=3, loc=5)
    return scores.astype(np.float32), targets.astype(np.float32)


def evaluate(
    name: str, scores: np.ndarray, targets: np.ndarray, where: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """A loss and its gradient."""
    where = np.ones(scores.shape, bool) if where is None else where
    value, gradient = COMPILED[name](jnp.asarray(scores), jnp.asarray(targets), where=where)
    assert value.dtype == jnp.float32
    return np.asarray(value), np.asarray(gradient)


@every_loss
def test_loss_and_gradient_equal_the_formula(name: str):
    loss, formula = CASES[name]
    scores, targets = draw(name)
    where = np.ones(scores.shape, bool)
    value, gradient = evaluate(name, scores, targets)
    np.testing.assert_allclose(value, expected_loss(formula, scores, targets, where), rtol=2e-6)
    expected = expected_gradient(formula, scores, targets, where)
    np.testing.assert_allclose(gradient, expected, atol=2e-6)
    assert np.abs(expected).max() > 0.01
    without_where = loss(jnp.asarray(scores), jnp.asarray(targets))
    np.testing.assert_allclose(without_where, value, rtol=1e-6)


@every_loss
@pytest.mark.parametrize("garbage", [0.0, 1e30, -np.inf, np.nan])
def test_masked_candidates_count_neither_in_loss_nor_gradient(name: str, garbage: float):
    _, formula = CASES[name]
    scores, targets = draw(name)
    where = np.ones(scores.shape, bool)
    where[1, 3:] = where[2, 1:] = where[4, :] = where[3, 0] = False
    expected = expected_loss(formula, scores, targets, where)
    expected_gradients = expected_gradient(formula, scores, targets, where)
    scores[~where] = targets[~where] = garbage
    value, gradient = evaluate(name, scores, targets, where)
    np.testing.assert_allclose(value, expected, rtol=2e-6)
    np.testing.assert_allclose(gradient, expected_gradients, atol=2e-6)
    assert (gradient[~where] == 0).all()
    assert (gradient[3] == 0).all(), "a group without its positive does not count"


@every_loss
def test_parts_weighted_by_their_groups_add_up_to_the_whole(name: str):
    scores, targets = draw(name)
    where = np.ones(scores.shape, bool)
    where[3, :] = where[4, 2:] = False
    first = np.arange(5)[:, None] < 3
    whole, whole_gradient = evaluate(name, scores, targets, where)
    parts = [evaluate(name, scores, targets, where & part) for part in (first, ~first)]
    np.testing.assert_allclose(parts[0][0] * 3 / 4 + parts[1][0] * 1 / 4, whole, rtol=1e-6)
    total = parts[0][1] * 3 / 4 + parts[1][1] * 1 / 4
    np.testing.assert_allclose(total, whole_gradient, atol=1e-6)


@every_loss
def test_a_group_of_one_and_no_group_at_all_give_nothing_to_learn(name: str):
    scores, targets = draw(name)
    alone = np.zeros(scores.shape, bool)
    alone[:, 0] = True
    for where in (alone, np.zeros(scores.shape, bool)):
        value, gradient = evaluate(name, scores, targets, where)
        assert value == 0.0
        assert (gradient == 0).all()


@every_loss
def test_large_scores_give_finite_losses_and_gradients(name: str):
    scores, targets = draw(name)
    value, gradient = evaluate(name, 1e4 * scores, targets)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    assert value > 100


@every_loss
def test_a_score_that_is_not_finite_is_not_hidden(name: str):
    scores, targets = draw(name)
    scores[1, 0] = np.nan
    assert np.isnan(evaluate(name, scores, targets)[0])


@every_loss
def test_scores_in_bfloat16_give_a_loss_in_float32(name: str):
    loss, formula = CASES[name]
    scores, targets = draw(name)
    rounded = jnp.asarray(scores, jnp.bfloat16)
    value = jax.jit(loss)(rounded, jnp.asarray(targets))
    assert value.dtype == jnp.float32
    exact = np.asarray(rounded.astype(jnp.float32))
    where = np.ones(scores.shape, bool)
    np.testing.assert_allclose(value, expected_loss(formula, exact, targets, where), rtol=2e-6)


@pytest.mark.parametrize(
    ("name", "label"), [("ranknet", 1.0), ("ranknet", 0.0), ("listwise_softmax", 0.0)]
)
def test_labels_without_a_difference_teach_nothing(name: str, label: float):
    scores, targets = draw(name)
    value, gradient = evaluate(name, scores, np.full_like(targets, label))
    assert value == 0.0
    assert (gradient == 0).all()


def test_ranknet_separates_equal_scores():
    scores, labels = np.zeros((5, 6), np.float32), np.zeros((5, 6), np.float32)
    labels[:, 0] = 1
    _, gradient = evaluate("ranknet", scores, labels)
    np.testing.assert_allclose(gradient, [[-0.1, *[0.02] * 5]] * 5, atol=1e-7)


def test_the_positive_alone_as_label_is_info_nce():
    scores, targets = draw("info_nce")
    labels = np.zeros_like(scores)
    labels[:, 0] = 1
    value, _ = evaluate("listwise_softmax", scores, labels)
    np.testing.assert_allclose(value, evaluate("info_nce", scores, targets)[0], rtol=1e-6)


@pytest.mark.parametrize("name", ["margin_mse", "kl_distillation"])
def test_distillation_ignores_a_constant_added_to_a_groups_scores(name: str):
    scores, teacher = draw(name)
    shift = np.arange(5, dtype=np.float32)[:, None]
    value, _ = evaluate(name, scores, teacher)
    np.testing.assert_allclose(evaluate(name, scores, teacher + 4 * shift)[0], value, rtol=1e-5)
    np.testing.assert_allclose(evaluate(name, scores - shift, teacher)[0], value, rtol=1e-5)
    np.testing.assert_allclose(evaluate(name, teacher + shift, teacher)[0], 0.0, atol=1e-6)


def test_at_a_high_temperature_divergence_compares_centred_scores():
    # Hinton et al. 2015, equation 4: the gradient tends to the mean of differences of logits.
    scores, teacher = draw("kl_distillation")
    loss = partial(kl_distillation, temperature=1e3)
    gradient = jax.jit(jax.grad(loss))(jnp.asarray(scores), jnp.asarray(teacher))
    centred = [x - x.mean(axis=1, keepdims=True) for x in (scores, teacher)]
    np.testing.assert_allclose(gradient, (centred[0] - centred[1]) / scores.size, atol=2e-3)


@pytest.mark.parametrize(
    ("name", "target", "case"),
    [
        ("info_nce", None, "info_nce"),
        ("localized_contrastive", None, "info_nce"),
        ("listwise_softmax", "labels", "listwise_softmax"),
        ("ranknet", "labels", "ranknet"),
        ("margin_mse", "teacher_scores", "margin_mse"),
        ("kl_distillation", "teacher_scores", "kl_at_3"),
    ],
)
def test_a_recipe_names_its_loss_and_adds_info_nce(name: LossName, target: str | None, case: str):
    config = LossConfig(name, temperature=3.0, contrastive_weight=0.0 if target is None else 0.3)
    assert targets_of(config) == target
    scores, targets = draw(case)
    where = np.ones(scores.shape, bool)
    where[2, 3:] = False
    expected = expected_loss(CASES[case][1], scores, targets, where)
    if target is not None:
        expected += 0.3 * expected_loss(info_nce_of_group, scores, targets, where)
    given = None if target is None else jnp.asarray(targets)
    value = jax.jit(make_loss(config))(jnp.asarray(scores), given, where=jnp.asarray(where))
    np.testing.assert_allclose(value, expected, rtol=2e-6)


def test_group_accuracy_counts_ties_and_nan_as_lost():
    scores = jnp.array([[2.0, 1.0, 1.0], [1.0, 1.0, 0.0], [jnp.nan, 0.0, 0.0], [0.0, -1.0, 5.0]])
    where = jnp.ones((4, 3), bool).at[3, 2].set(False)
    assert float(group_accuracy(scores)) == 0.25
    assert float(group_accuracy(scores, where=where)) == 0.5


def test_docstring_examples_hold():
    result = doctest.testmod(losses)
    assert result.attempted >= 16
    assert result.failed == 0
