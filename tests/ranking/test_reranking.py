"""Reranking scores every candidate once and names what it cannot find."""

from collections.abc import Iterable, Iterator
from typing import NoReturn

import pytest

from jaxrank.errors import InputError
from jaxrank.evaluation.runs import Run
from jaxrank.ranking.reranking import rerank_run

QUERIES = {"q1": "one", "q2": "three"}
DOCUMENTS = {"d1": "a", "d2": "bb", "d3": "ccc"}
RUN: Run = {"q1": {"d1": 3.0, "d2": 2.0, "d3": 1.0}, "q2": {"d3": 1.0, "d2": 1.0, "d1": 1.0}}


def score_lengths(pairs: Iterable[tuple[str, str]]) -> Iterator[float]:
    for query, document in pairs:
        yield float(len(query) * 10 + len(document))


def test_every_candidate_gets_the_score_of_its_texts() -> None:
    assert rerank_run(RUN, QUERIES, DOCUMENTS, score_lengths) == {
        "q1": {"d1": 31.0, "d2": 32.0, "d3": 33.0},
        "q2": {"d1": 51.0, "d2": 52.0, "d3": 53.0},
    }


def test_texts_are_read_only_when_they_are_asked_for() -> None:
    read = []

    class Watched(dict[str, str]):
        def __getitem__(self, name: str) -> str:
            read.append(name)
            return super().__getitem__(name)

    def score(pairs: Iterable[tuple[str, str]]) -> Iterator[float]:
        for number, _ in enumerate(pairs, start=1):
            assert len(read) <= number + 1  # the check of annotations reads one
            yield 0.0

    rerank_run(RUN, QUERIES, Watched(DOCUMENTS), score)
    assert len(read) >= 6


def test_depth_keeps_the_best_and_breaks_ties_by_document_id() -> None:
    reranked = rerank_run(RUN, QUERIES, DOCUMENTS, score_lengths, depth=2)
    assert {query: set(scores) for query, scores in reranked.items()} == {
        "q1": {"d1", "d2"},
        "q2": {"d1", "d2"},
    }


@pytest.mark.parametrize("depth", [0, -2])
def test_a_depth_below_1_is_refused(depth: int) -> None:
    with pytest.raises(InputError, match=f"depth: got {depth}; at least 1"):
        rerank_run(RUN, QUERIES, DOCUMENTS, score_lengths, depth=depth)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"q9": {"d1": 1.0}}, "a.run: query 'q9' is not among the queries of data; "),
        ({"q1": {"d9": 1.0}}, "a.run: query 'q1' has document 'd9', which data lacks; "),
    ],
)
def test_what_the_collection_lacks_is_named(run: Run, message: str) -> None:
    def score(_: object) -> NoReturn:
        raise AssertionError("scored before the run was checked")

    with pytest.raises(InputError) as error:
        rerank_run(run, QUERIES, DOCUMENTS, score, run_name="a.run", collection_name="data")
    mend = "give the collection that the run was made from"
    assert str(error.value) == message + mend
