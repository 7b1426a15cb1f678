"""Is one run better than another, query by query? Paired tests by SciPy.

Both tests ask how likely a mean difference at least this large (either way) is if the two runs were
equally good. The t-test assumes roughly normal differences; the permutation test flips the sign of
each query's difference and assumes nothing. They mostly agree: Smucker, Allan and Carterette, "A
comparison of statistical significance tests for information retrieval evaluation", CIKM 2007.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# Two orders of the same documents can give measures that differ in the last bit only.
SAME = 1e-9
_BATCH = 512

Interval = tuple[float, float]
"""Lower and upper end of a 95% confidence interval."""


@dataclass(frozen=True)
class PairedTest:
    """One run against a baseline, over the same queries.

    Attributes:
        difference: mean of (run - baseline).
        interval: 95% confidence interval of that mean (Student's t); None for a single query.
        p_t_test: two-sided p of the paired t-test; 1 where the runs are equal on every query.
        p_permutation: two-sided p of the paired permutation test, exact for few queries.
        wins, ties, losses: queries on which the run is better, equal, worse.
    """

    difference: float
    interval: Interval | None
    p_t_test: float
    p_permutation: float
    wins: int
    ties: int
    losses: int


def paired_test(
    values: Mapping[str, float],
    baseline: Mapping[str, float],
    *,
    resamples: int = 9_999,
    seed: int = 0,
) -> PairedTest:
    """Compare per-query values with those of a baseline, over the same queries.

    Args:
        values: query id -> value.
        baseline: query id -> value, the same queries.
        resamples: sign patterns that the permutation test draws; if there are no more than that,
            all of them are tried. The smallest p is then 2 / (resamples + 1).
        seed: of those draws.
    """
    if values.keys() != baseline.keys() or not values:
        raise ValueError("both runs need values for the same queries, at least one")
    differences = np.array([values[query] - baseline[query] for query in values])
    p_t_test, interval = _t_test(differences)
    return PairedTest(
        difference=float(differences.mean()),
        interval=interval,
        p_t_test=p_t_test,
        p_permutation=_permutation_test(differences, resamples, seed),
        wins=int((differences > SAME).sum()),
        ties=int((np.abs(differences) <= SAME).sum()),
        losses=int((differences < -SAME).sum()),
    )


def mean_interval(values: Sequence[float]) -> Interval | None:
    """95% confidence interval of the mean over queries, by Student's t; None for a single query.

    It answers for other queries of the same kind. Whether one run beats another is a paired
    test's matter: intervals of two runs may overlap although one is surely better.
    """
    return _t_test(np.array(values))[1]


def _t_test(differences: np.ndarray) -> tuple[float, Interval | None]:
    from scipy import stats  # takes 0.7 s, which no importer should pay

    if len(differences) == 1:
        return 1.0, None
    if np.ptp(differences) <= SAME:
        # No spread, so no t: equal runs are certainly equal, a constant gap is certainly a gap.
        gap = float(differences.mean())
        return float(abs(gap) <= SAME), (gap, gap)
    result = stats.ttest_1samp(differences, 0.0)
    low, high = result.confidence_interval(0.95)
    return float(result.pvalue), (float(low), float(high))


def _permutation_test(differences: np.ndarray, resamples: int, seed: int) -> float:
    from scipy import stats

    if len(differences) == 1 or np.abs(differences).max() <= SAME:
        return 1.0
    result = stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        n_resamples=resamples,
        batch=_BATCH,
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)
