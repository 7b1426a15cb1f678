import numpy as np
import pytest

from jaxrank.evaluation.correction import Correction, correct

P = [0.01, 0.04, 0.03, 0.005]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("none", P),
        ("bonferroni", [0.04, 0.16, 0.12, 0.02]),
        # By rising p: .005 x 4, .01 x 3, .03 x 2, .04 x 1, none below the one before it.
        ("holm", [0.03, 0.06, 0.06, 0.02]),
        # By falling p: .04 x 4/4, .03 x 4/3, .01 x 4/2, .005 x 4/1, none above the one after it.
        ("benjamini-hochberg", [0.02, 0.04, 0.04, 0.02]),
    ],
)
def test_p_values_by_hand(how: Correction, expected: list[float]) -> None:
    assert correct(P, how) == pytest.approx(expected)


@pytest.mark.parametrize("how", ["holm", "bonferroni", "benjamini-hochberg"])
def test_corrected_p_values_are_no_smaller_and_at_most_1(how: Correction) -> None:
    p = np.random.default_rng(0).random(50) ** 3
    corrected = np.array(correct(p.tolist(), how))
    assert (corrected >= p).all()
    assert (corrected <= 1).all()
    assert (np.diff(corrected[np.argsort(p)]) >= 0).all()


def test_holm_lies_between_none_and_bonferroni_and_above_benjamini_hochberg() -> None:
    p = (np.random.default_rng(1).random(20) ** 4).tolist()
    holm = np.array(correct(p, "holm"))
    assert (holm <= np.array(correct(p, "bonferroni"))).all()
    assert (holm >= np.array(correct(p, "benjamini-hochberg"))).all()


@pytest.mark.parametrize("how", ["none", "holm", "bonferroni", "benjamini-hochberg"])
def test_a_single_comparison_and_none_need_no_correction(how: Correction) -> None:
    assert correct([0.03], how) == pytest.approx([0.03])
    assert correct([], how) == []
