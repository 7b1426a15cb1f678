"""A first stage's run, ordered anew by the scores of a reranker."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

import numpy as np

from jaxrank.errors import InputError
from jaxrank.evaluation.runs import Run, ranking
from jaxrank.progress import progress_bar

ScorePairs = Callable[[Sequence[tuple[str, str]]], np.ndarray]

# Few enough that the bar moves on a CPU too, many enough that sorting by length pays.
_CHUNK_PAIRS = 512


def rerank_run(
    run: Run,
    queries: Mapping[str, str],
    documents: Mapping[str, str],
    score_pairs: ScorePairs,
    *,
    depth: int | None = None,
    progress: bool = False,
) -> Run:
    """Score the candidates of every query of `run` and return the run of these scores.

    Texts are read and scored some hundred pairs at a time, so memory does not grow with the run.

    Args:
        run: query id -> candidate id -> first-stage score.
        queries: query id -> text.
        documents: document id -> text.
        score_pairs: (query, document) texts -> scores, float32 (n,).
        depth: candidates kept per query, the best by `run`; None keeps all.

    Raises:
        InputError: depth is below 1, or the run names a query or a document whose text is not
            there. Nothing is scored then.
    """
    if depth is not None and depth < 1:
        raise InputError(f"depth: got {depth}; at least 1 is needed")
    candidates = {query: ranking(scores)[:depth] for query, scores in run.items()}
    for query, ids in candidates.items():
        if query not in queries:
            raise InputError(f"run: query {query!r} is not among the collection's queries")
        for document in ids:
            if document not in documents:
                raise InputError(f"run: document {document!r} is not in the collection")
    total = sum(map(len, candidates.values()))
    reranked: Run = {query: {} for query in candidates}
    with progress_bar(description="reranking", unit="pair", enabled=progress, total=total) as bar:
        for chunk in _chunks(candidates):
            texts = [(queries[query], documents[document]) for query, document in chunk]
            for (query, document), score in zip(chunk, score_pairs(texts), strict=True):
                reranked[query][document] = float(score)
            bar.update(len(chunk))
    return reranked


def _chunks(candidates: Mapping[str, list[str]]) -> Iterator[list[tuple[str, str]]]:
    pairs = ((query, document) for query, ids in candidates.items() for document in ids)
    while chunk := list(islice(pairs, _CHUNK_PAIRS)):
        yield chunk
