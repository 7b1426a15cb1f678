"""Training groups: a query, one relevant document and the pool that its negatives come from.

Three layouts of JSON lines, told apart by the first line's keys:

    ids     {"query_id": "q1", "positive_id": "d3", "negative_ids": ["d7", ...]}
    texts   those of FlagEmbedding and of Tevatron: see `text_groups`

All may carry the scores of a teacher, and groups by ids graded labels, which some losses train on:

    ids     {..., "positive_score": 7.1, "negative_scores": [2.3, ...]}
            {..., "positive_label": 3, "negative_labels": [1, ...]}
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from sys import intern
from typing import IO, Any, Literal

from jaxrank.data.group_lines import (
    Group,
    TrainingData,
    check_size,
    check_strings,
    read_group_lines,
    read_id,
)
from jaxrank.data.group_targets import LABEL_KEYS, SCORE_KEYS, read_labels, read_scores
from jaxrank.data.text_groups import (
    PASSAGE_LISTS,
    READERS,
    Layout,
    passages_by_id,
    text_layout,
)
from jaxrank.errors import InputError
from jaxrank.files import atomic_open, read_jsonl

__all__ = [
    "Group",
    "Targets",
    "TrainingData",
    "copy_with_scores",
    "read_groups",
    "read_training_data",
    "write_groups",
]

_ID_KEYS = {"query_id", "positive_id", "negative_ids"}

Targets = Literal["labels", "teacher_scores"]
"""What a loss may train on besides the place of the positive: a field of `Group`."""


def read_groups(
    path: str | Path,
    *,
    min_negatives: int = 1,
    queries: Mapping[str, str] | None = None,
    documents: Mapping[str, str] | None = None,
) -> list[Group]:
    """Read a file of groups by ids.

    Args:
        min_negatives: the fewest negatives a group may have. Give the number drawn per step, or a
            smaller one to allow groups that have fewer; the loss masks what is not there.
        queries: where given, every query id must be in it.
        documents: where given, every document id must be in it.

    Raises:
        InputError: naming file and line: wrong keys, no positive, too few negatives, a document
            named twice, labels or scores that do not fit, an id that `queries` or `documents` does
            not have.
    """
    groups = []
    for where, line in read_group_lines(path, _ID_KEYS, {*LABEL_KEYS, *SCORE_KEYS}):
        query_id = read_id(line, "query_id", where)
        positive_id = read_id(line, "positive_id", where)
        negative_ids = line["negative_ids"]
        check_strings(negative_ids, "negative_ids", where)
        check_size(len(negative_ids), min_negatives, where)
        if len({positive_id, *negative_ids}) != 1 + len(negative_ids):
            raise InputError(f"{where}: a document is named twice; each may be there once")
        for kind, ids, known in (
            ("query", [query_id], queries),
            ("document", [positive_id, *negative_ids], documents),
        ):
            unknown = [name for name in ids if known is not None and name not in known]
            if unknown:
                raise InputError(
                    f"{where}: {kind} {unknown[0]!r} is not in the collection; give the one that "
                    "the groups were made from"
                )
        targets = read_labels(line, where), read_scores(line, where)
        # A million groups name the same queries and documents again and again: one string each.
        query_id, positive_id, *negative_ids = map(intern, (query_id, positive_id, *negative_ids))
        groups.append(Group(query_id, positive_id, tuple(negative_ids), *targets))
    return groups


def read_training_data(
    path: str | Path,
    *,
    queries: Mapping[str, str] | None = None,
    documents: Mapping[str, str] | None = None,
    min_negatives: int = 1,
    targets: Targets | None = None,
) -> TrainingData:
    """Read a file of groups in any layout, with the texts to train on.

    Args:
        queries: query id -> text of the collection; needed for groups by ids.
        documents: document id -> text of the collection; needed for groups by ids.
        min_negatives: as for `read_groups`.
        targets: what the loss trains on. Teacher scores must be there for every group; labels for
            every group or for none, where the positive counts 1 and the others 0.

    Raises:
        InputError: as `read_groups` or the readers of `text_groups`, or groups by ids without a
            collection, or groups without their targets.
    """
    layout = _layout(path)
    if layout is not None:
        data = READERS[layout](path, min_negatives=min_negatives)
    else:
        groups = read_groups(
            path, min_negatives=min_negatives, queries=queries, documents=documents
        )
        if queries is None or documents is None:
            raise InputError(f"{path}: groups by ids need the collection that has their texts")
        data = TrainingData(groups, queries, documents)
    if targets is not None:
        _check_targets(path, data.groups, targets)
    return data


def write_groups(path: str | Path, groups: Iterable[Group]) -> None:
    """Write groups by ids, all or nothing."""
    with atomic_open(path) as file:
        for group in groups:
            line: dict[str, Any] = {
                "query_id": group.query_id,
                "positive_id": group.positive_id,
                "negative_ids": group.negative_ids,
            }
            for keys, values in ((LABEL_KEYS, group.labels), (SCORE_KEYS, group.teacher_scores)):
                if values is not None:
                    line |= {keys[0]: values[0], keys[1]: values[1:]}
            _write_line(file, line)


def copy_with_scores(source: str | Path, target: str | Path, groups: Iterable[Group]) -> None:
    """Copy a file of groups in any layout, with teacher scores, all or nothing.

    Whatever else its lines hold stays as it is.

    Args:
        groups: those of `source`, as `read_training_data` gave them, with `teacher_scores`.
    """
    rest = (_scores_of(group) for group in groups)
    layout = _layout(source)
    with atomic_open(target) as file:
        for _, line in read_jsonl(source):
            if layout == "flag-embedding":
                _score_texts(line, rest)
            elif layout == "tevatron":
                _score_passages(line, rest)
            else:
                line["positive_score"], *line["negative_scores"] = next(rest)
            _write_line(file, line)


def _score_texts(line: dict[str, Any], rest: Iterator[tuple[float, ...]]) -> None:
    """Put the scores of a line's groups, one for each positive, beside FlagEmbedding's texts."""
    texts = tuple(dict.fromkeys(line["pos"])), tuple(dict.fromkeys(line["neg"]))
    scored = [next(rest) for _ in texts[0]]
    positives = dict(zip(texts[0], (scores[0] for scores in scored), strict=True))
    negatives = dict(zip(texts[1], scored[0][1:], strict=True))
    line["pos_scores"] = [positives[text] for text in line["pos"]]
    line["neg_scores"] = [negatives[text] for text in line["neg"]]


def _score_passages(line: dict[str, Any], rest: Iterator[tuple[float, ...]]) -> None:
    """Put the scores of a line's groups, one for each positive, into Tevatron's passages."""
    positives, negatives = (passages_by_id(line[key]) for key in PASSAGE_LISTS)
    scored = [next(rest) for _ in positives]
    scores = dict(zip(positives, (scores[0] for scores in scored), strict=True))
    scores |= dict(zip(negatives, scored[0][1:], strict=True))
    for key in PASSAGE_LISTS:
        for passage in line[key]:
            passage["score"] = scores[passage["docid"]]


def _scores_of(group: Group) -> tuple[float, ...]:
    assert group.teacher_scores is not None, "score the groups first"
    return group.teacher_scores


def _write_line(file: IO[str], line: Mapping[str, Any]) -> None:
    file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _layout(path: str | Path) -> Layout | None:
    return text_layout(next(read_jsonl(path), (0, {}))[1])


def _check_targets(path: str | Path, groups: Sequence[Group], targets: Targets) -> None:
    """Refuse groups that lack what the loss trains on."""
    lacking = [group for group in groups if getattr(group, targets) is None]
    if not lacking or (targets == "labels" and len(lacking) == len(groups)):
        return
    first = f"{len(lacking)} of {len(groups)} groups, first that of query {lacking[0].query_id!r}"
    if targets == "labels":
        raise InputError(f"{path}: no labels in {first}; give all groups labels, or none")
    raise InputError(
        f"{path}: no teacher scores in {first}; this loss learns from them: "
        f"python -m jaxrank.rerank --model TEACHER --collection DIR --groups {path} --output OUT "
        "writes them"
    )
