from collections.abc import Sequence

import numpy as np
import pytest

from jaxrank.data.groups import Group, TrainingData
from jaxrank.errors import InputError
from jaxrank.ranking import teacher_scores
from jaxrank.ranking.teacher_scores import score_groups

DOCUMENTS = {f"d{number}": "x" * number for number in range(8)}
QUERIES = {"q1": "a", "q2": "bb"}
GROUPS = [
    Group("q1", "d1", ("d2", "d3")),
    Group("q1", "d4", ("d3", "d2"), labels=(1.0, 0.0, 0.0)),
    Group("q2", "d5", ("d2",), teacher_scores=(0.0, 0.0)),
]
DATA = TrainingData(GROUPS, QUERIES, DOCUMENTS)


def by_lengths(pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    return np.array([10 * len(query) + len(document) for query, document in pairs], np.float32)


@pytest.mark.parametrize("chunk", [1, 4, 512])
def test_every_document_gets_the_score_of_its_pair(chunk: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(teacher_scores, "_CHUNK_PAIRS", chunk)
    scored = list(score_groups(DATA, by_lengths))
    assert [group.teacher_scores for group in scored] == [(11, 12, 13), (14, 13, 12), (25, 22)]
    assert [group.labels for group in scored] == [None, (1.0, 0.0, 0.0), None]
    assert [group.negative_ids for group in scored] == [group.negative_ids for group in GROUPS]


def test_a_pair_that_neighbours_share_is_scored_once():
    asked: list[tuple[str, str]] = []

    def count(pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        asked.extend(pairs)
        return by_lengths(pairs)

    assert len(list(score_groups(DATA, count))) == 3
    assert len(asked) == len(set(asked)) == 6


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(InputError, match="query 'q1': the model's scores are not finite"):
        list(score_groups(DATA, lambda pairs: np.full(len(pairs), np.nan, np.float32)))
