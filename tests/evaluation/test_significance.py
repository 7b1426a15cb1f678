from itertools import product

import numpy as np
import pytest
from scipy import stats

from jaxrank.evaluation.significance import paired_test


def named(values: list[float]) -> dict[str, float]:
    return {f"q{i}": value for i, value in enumerate(values)}


def test_equal_runs_have_p_one_and_no_interval_width() -> None:
    values = named([0.5, 0.0, 1.0])
    test = paired_test(values, values)
    assert (test.p_t_test, test.p_permutation) == (1.0, 1.0)
    assert (test.difference, test.interval) == (0.0, (0.0, 0.0))
    assert (test.wins, test.ties, test.losses) == (0, 3, 0)


def test_differences_in_the_last_bit_are_none() -> None:
    values = [i / 10 for i in range(12)]
    test = paired_test(named([value + 1e-13 for value in values]), named(values))
    assert (test.p_t_test, test.p_permutation, test.ties) == (1.0, 1.0, 12)


def test_a_constant_gap_needs_no_warning() -> None:
    test = paired_test(named([0.6] * 12), named([0.5] * 12))
    assert test.p_t_test == 0.0
    assert test.p_permutation == pytest.approx(2 / 2**12)
    assert test.interval == pytest.approx((0.1, 0.1))


def test_a_single_query_proves_nothing() -> None:
    test = paired_test(named([1.0]), named([0.0]))
    assert (test.p_t_test, test.p_permutation, test.interval) == (1.0, 1.0, None)


def test_the_t_test_is_scipys_paired_one() -> None:
    random = np.random.default_rng(0)
    a, b = random.random(40).tolist(), random.random(40).tolist()
    test, scipys = paired_test(named(a), named(b)), stats.ttest_rel(a, b)
    assert test.p_t_test == pytest.approx(scipys.pvalue)
    assert test.interval == pytest.approx(tuple(scipys.confidence_interval(0.95)))
    assert test.p_permutation == pytest.approx(scipys.pvalue, abs=0.03)


def test_few_queries_get_the_exact_permutation_p() -> None:
    differences = np.array([0.3, 0.1, -0.2, 0.4, 0.25, 0.5])
    signs = np.array(list(product([1, -1], repeat=6)))
    means = np.abs((signs * differences).mean(1))
    exact = (means >= abs(differences.mean()) - 1e-12).mean()
    test = paired_test(named(differences.tolist()), named([0.0] * 6))
    assert test.p_permutation == pytest.approx(exact)


def test_wins_ties_and_losses_are_counted_by_query() -> None:
    test = paired_test(named([0.5, 0.2, 0.3, 0.3 + 1e-12]), named([0.1, 0.1, 0.9, 0.3]))
    assert (test.wins, test.ties, test.losses) == (2, 1, 1)


def test_the_same_seed_gives_the_same_p() -> None:
    random = np.random.default_rng(1)
    a, b = named(random.random(60).tolist()), named(random.random(60).tolist())
    assert paired_test(a, b) == paired_test(a, b)
    assert paired_test(a, b).p_permutation != paired_test(a, b, seed=1).p_permutation


def test_runs_over_different_queries_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="same queries"):
        paired_test({"q1": 1.0}, {"q2": 1.0})
