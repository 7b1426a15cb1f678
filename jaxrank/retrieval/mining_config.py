"""What is asked of mining: how many negatives, from which ranks, and with which guards."""

import math
from dataclasses import dataclass

from jaxrank.errors import InputError


@dataclass(frozen=True, kw_only=True)
class MiningConfig:
    """How negatives are drawn from a run.

    Raises:
        InputError: naming the option that is out of range.
    """

    negatives: int = 7
    """Negatives kept per group; more than training takes make a pool that each epoch draws from.
    RankMamba has 7; State Space Models are Strong Text Rerankers 15 for passages."""

    groups_per_positive: int = 1
    """Groups made of each positive, sharing no negative while candidates last; RankMamba has 2."""

    first_rank: int = 1
    """Best rank that may become a negative; a larger one skips likely unjudged positives."""

    last_rank: int = 50
    """Worst rank that may become a negative; RankMamba takes the top 100."""

    seed: int = 0
    """Of the draws; each query has its own stream."""

    min_grade: int = 1
    """Lowest grade that makes a document a positive. Whatever is judged above 0 is kept out of the
    negatives all the same."""

    score_margin: float | None = None
    """Leave out candidates that the run scores above the positive's score minus this margin, in the
    run's own unit: they may be relevant too. 0 leaves out what ranks above the positive. Null: none
    are. Cannot be applied to a positive that the run does not have."""

    drop_duplicates: bool = False
    """Leave out candidates with the same body as a relevant document of the query or as a better
    ranked candidate. Without it they are counted where that needs no text, in imported collections;
    with it the texts of all candidates are read in others."""

    def __post_init__(self) -> None:
        for name in ("negatives", "groups_per_positive", "min_grade"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: {getattr(self, name)}; at least 1 is needed")
        first, last = self.first_rank, self.last_rank
        if not 1 <= first <= last:
            raise InputError(
                f"first_rank, last_rank: {first}, {last}; 1 <= first <= last is needed"
            )
        if last - first + 1 < self.negatives:
            raise InputError(
                f"negatives: {self.negatives}; ranks {first} to {last} are only {last - first + 1}"
            )
        if self.score_margin is not None and not math.isfinite(self.score_margin):
            raise InputError(f"score_margin: {self.score_margin}; a finite number is needed")
