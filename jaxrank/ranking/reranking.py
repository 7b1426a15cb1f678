"""A first stage's run, ordered anew by the scores of a reranker."""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping

from jaxrank.errors import InputError
from jaxrank.evaluation.runs import Run, ranking
from jaxrank.progress import progress_bar
from jaxrank.ranking.long_documents import Text

ScoreDocuments = Callable[[Iterable[tuple[str, Text]]], Iterator[float]]
"""(query, document) texts -> their scores, one by one in the same order."""


def rerank_run(
    run: Run,
    queries: Mapping[str, str],
    documents: Mapping[str, Text],
    score_documents: ScoreDocuments,
    *,
    depth: int | None = None,
    run_name: str = "run",
    collection_name: str = "the collection",
    progress: bool = False,
) -> Run:
    """Score the candidates of every query of `run` and return the run of these scores.

    Texts are read when they are asked for, so memory does not grow with them.

    Args:
        run: query id -> candidate id -> first-stage score.
        queries: query id -> text.
        documents: document id -> text.
        score_documents: asks for some texts ahead and yields the scores; see DocumentScorer.
        depth: candidates kept per query, the best by `run`; None keeps all.
        run_name, collection_name: what messages call them, e.g. their paths.

    Raises:
        InputError: what `find_candidates` raises. Nothing is scored then.
    """
    candidates = find_candidates(
        run,
        queries,
        documents,
        depth=depth,
        run_name=run_name,
        collection_name=collection_name,
    )
    total = sum(map(len, candidates.values()))
    reranked: Run = {query: {} for query in candidates}
    scores = score_documents(
        (queries[query], documents[document]) for query, document in _pairs(candidates)
    )
    with progress_bar(description="reranking", unit="pair", enabled=progress, total=total) as bar:
        for (query, document), score in zip(_pairs(candidates), scores, strict=True):
            reranked[query][document] = score
            bar.update(1)
    return reranked


def find_candidates(
    run: Run,
    queries: Container[str],
    documents: Container[str],
    *,
    depth: int | None = None,
    run_name: str = "run",
    collection_name: str = "the collection",
) -> dict[str, list[str]]:
    """The documents that are scored for each query, best first by `run`.

    Args:
        run: query id -> candidate id -> first-stage score.
        queries: ids of the queries whose texts are there.
        documents: ids of the documents whose texts are there.
        depth: candidates kept per query, the best by `run`; None keeps all.
        run_name, collection_name: what messages call them, e.g. their paths.

    Raises:
        InputError: depth is below 1, or the run names a query or a document whose text is not
            there.
    """
    if depth is not None and depth < 1:
        raise InputError(f"depth: got {depth}; at least 1 is needed")
    candidates = {query: ranking(scores)[:depth] for query, scores in run.items()}
    mend = "give the collection that the run was made from"
    for query, ids in candidates.items():
        if query not in queries:
            raise InputError(
                f"{run_name}: query {query!r} is not among the queries of {collection_name}; {mend}"
            )
        for document in ids:
            if document not in documents:
                raise InputError(
                    f"{run_name}: query {query!r} has document {document!r}, which "
                    f"{collection_name} lacks; {mend}"
                )
    return candidates


def _pairs(candidates: Mapping[str, list[str]]) -> Iterator[tuple[str, str]]:
    return ((query, document) for query, ids in candidates.items() for document in ids)
