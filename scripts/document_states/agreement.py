"""How far two runs over the same candidates agree: in scores, and in the order of each query."""

from dataclasses import dataclass

import numpy as np

from jaxrank.evaluation.runs import Run, ranking


@dataclass(frozen=True)
class Agreement:
    """A run beside the one that it should equal."""

    queries: int
    pairs: int
    largest_difference: float
    mean_difference: float
    """Of absolute differences."""
    same_rankings: int
    """Queries whose documents stand in an order that is right; documents whose scores are equal by
    right have no order of their own."""
    largest_swapped_gap: float
    """Of two documents in another order, how far apart they are by right; 0 if there are none."""


def compare_scores(right: Run, other: Run) -> Agreement:
    """Compare `other` with the run that is right; both hold the same queries and documents."""
    differences, same, gap = [], 0, 0.0
    for query, scores in right.items():
        found = other[query]
        if scores.keys() != found.keys():
            raise ValueError(f"query {query!r}: the runs hold different documents")
        differences += [abs(found[name] - score) for name, score in scores.items()]
        in_order = np.array([scores[name] for name in ranking(found)])
        # By right nothing may stand above what has a higher score.
        lowest_above = np.minimum.accumulate(in_order)
        own_gap = float(np.max(in_order - lowest_above))
        same += own_gap == 0
        gap = max(gap, own_gap)
    return Agreement(
        queries=len(right),
        pairs=len(differences),
        largest_difference=float(np.max(differences)),
        mean_difference=float(np.mean(differences)),
        same_rankings=same,
        largest_swapped_gap=gap,
    )
