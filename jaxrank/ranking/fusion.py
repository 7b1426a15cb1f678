"""Several runs made one: by their ranks, or by their scores brought to one scale.

    rrf            sum over runs of weight / (60 + rank)
    interpolation  sum over runs of weight * (score - lowest) / (highest - lowest), lowest and
                   highest among the query's documents in that run

A document that a run lacks gets nothing from it: as if it ranked infinitely deep, or had that run's
lowest score. A query that some runs lack is fused from the others. Ranks go by (-score, document
id), and so does the fused order, so nothing depends on the order of lines.

Reciprocal rank fusion: Cormack, Clarke and Buettcher, "Reciprocal rank fusion outperforms Condorcet
and individual rank learning methods", SIGIR 2009, with their constant 60. Interpolation with the
first stage: Wang, Zhuang and Zuccon, "BERT-based dense retrievers require interpolation with BM25
for effective passage retrieval", ICTIR 2021.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from jaxrank.errors import InputError
from jaxrank.evaluation.runs import Run, ranking

Method = Literal["rrf", "interpolation"]

_RRF_CONSTANT = 60


@dataclass(frozen=True)
class Fusion:
    """A fused run, and what the runs did not have in common.

    Attributes:
        run: query id -> document id -> fused score.
        num_queries: of the fused run.
        partial_queries: those that not all runs have.
        num_documents: results before the cut at the depth, over all queries.
        partial_documents: those that not all runs with that query have.
    """

    run: Run
    num_queries: int
    partial_queries: int
    num_documents: int
    partial_documents: int

    def lines(self) -> list[str]:
        """The counts in words; what only some runs have where there is some."""
        lines = [f"{self.num_queries} queries, {self.num_documents} documents for them"]
        if self.partial_queries:
            lines.append(f"{self.partial_queries} queries are in some of the runs only")
        if self.partial_documents:
            lines.append(
                f"{self.partial_documents} documents are in some only of the runs that have their "
                "query"
            )
        return lines


def fuse_runs(
    runs: Sequence[Run],
    *,
    method: Method = "rrf",
    weights: Sequence[float] = (),
    depth: int | None = None,
) -> Fusion:
    """Fuse runs query by query; queries are in the order of their first run.

    Args:
        runs: at least two, as `read_run` gives them.
        method: rrf by rank, interpolation by score (the module tells how).
        weights: one a run, zero or more; none gives all the same.
        depth: documents kept per query; None keeps all.

    Raises:
        InputError: fewer than two runs, weights that do not fit them, a depth below 1, or runs
            that have no query in common.
    """
    weights = _checked_weights(weights, len(runs))
    if depth is not None and depth < 1:
        raise InputError(f"depth: got {depth}; at least 1 is needed")
    queries = list(dict.fromkeys(query for run in runs for query in run))
    shared = set(runs[0]).intersection(*runs[1:])
    if not shared:
        raise InputError("runs: no query is in all of them; are they of the same split?")
    fused: Run = {}
    num_documents = partial_documents = 0
    contributions = _reciprocal_ranks if method == "rrf" else _normalised
    for query in queries:
        present = [
            (weight, run[query]) for weight, run in zip(weights, runs, strict=True) if query in run
        ]
        total: dict[str, float] = {}
        for weight, scores in present:
            for document, value in contributions(scores).items():
                total[document] = total.get(document, 0.0) + weight * value
        num_documents += len(total)
        partial_documents += sum(
            any(document not in scores for _, scores in present) for document in total
        )
        fused[query] = {document: total[document] for document in ranking(total)[:depth]}
    return Fusion(fused, len(queries), len(queries) - len(shared), num_documents, partial_documents)


def _reciprocal_ranks(scores: dict[str, float]) -> dict[str, float]:
    return {
        document: 1 / (_RRF_CONSTANT + rank)
        for rank, document in enumerate(ranking(scores), start=1)
    }


def _normalised(scores: dict[str, float]) -> dict[str, float]:
    """Scores from 0 to 1; all 1 where all are equal, since each is the highest."""
    low, high = min(scores.values()), max(scores.values())
    # Halved first: the difference of two large scores may leave the range of numbers.
    spread = high / 2 - low / 2
    if spread == 0:
        return dict.fromkeys(scores, 1.0)
    return {document: (score / 2 - low / 2) / spread for document, score in scores.items()}


def _checked_weights(weights: Sequence[float], num_runs: int) -> list[float]:
    if num_runs < 2:
        raise InputError(f"runs: {num_runs} given; fusion needs at least two")
    if not weights:
        return [1.0] * num_runs
    if len(weights) != num_runs:
        raise InputError(f"weights: {len(weights)} given for {num_runs} runs; one each is needed")
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not any(weights):
        raise InputError(
            f"weights: got {', '.join(map(str, weights))}; numbers from 0 on are needed, one of "
            "them above 0"
        )
    return list(weights)
