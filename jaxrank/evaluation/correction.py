"""p values of several tests, corrected so that many comparisons find no more by chance.

The family, within which p values are corrected, is all tests of ONE measure in one table: every run
against the baseline; in a slicing, every run in every slice. Measures are not corrected for each
other, since they are read as answers to different questions: name the one that decides beforehand.
The t-test's and the permutation test's p values are two families, as only one of them is reported.

See Carterette, "Multiple testing in statistical analysis of systems-based information retrieval
experiments", ACM TOIS 30(1), 2012.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

Correction = Literal["none", "holm", "bonferroni", "benjamini-hochberg"]


def correct(p_values: Sequence[float], how: Correction) -> list[float]:
    """Corrected p values, in the order given.

    Args:
        p_values: those of one family.
        how: bonferroni and holm bound the probability of ANY false finding (holm finds at least as
            much, under the same assumptions: Holm, Scandinavian Journal of Statistics 6, 1979);
            benjamini-hochberg bounds the expected SHARE of false findings.
    """
    count = len(p_values)
    if how == "none" or not count:
        return list(p_values)
    if how == "bonferroni":
        return [min(1.0, count * p) for p in p_values]
    if how == "benjamini-hochberg":
        from scipy import stats  # takes 0.7 s, which no importer should pay

        return [float(p) for p in stats.false_discovery_control(np.array(p_values), method="bh")]
    order = np.argsort(p_values, kind="stable")
    steps = np.array(p_values)[order] * np.arange(count, 0, -1)
    corrected = np.empty(count)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(p) for p in corrected]
