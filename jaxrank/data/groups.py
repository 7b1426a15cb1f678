"""Training groups: a query, one relevant document and the pool that its negatives come from.

Two layouts of JSON lines, told apart by the first line's keys:

    ids     {"query_id": "q1", "positive_id": "d3", "negative_ids": ["d7", ...]}
    texts   {"query": "...", "pos": ["...", ...], "neg": ["...", ...]}      (FlagEmbedding's)

Both may carry the scores of a teacher, and groups by ids graded labels, which some losses train on:

    ids     {..., "positive_score": 7.1, "negative_scores": [2.3, ...]}
            {..., "positive_label": 3, "negative_labels": [1, ...]}
    texts   {..., "pos_scores": [7.1, ...], "neg_scores": [2.3, ...]}
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from jaxrank.data.collection import is_unicode
from jaxrank.data.group_targets import (
    LABEL_KEYS,
    SCORE_KEYS,
    TEXT_SCORE_KEYS,
    read_labels,
    read_scores,
    read_text_scores,
)
from jaxrank.errors import InputError
from jaxrank.files import atomic_open, read_jsonl

_ID_KEYS = {"query_id", "positive_id", "negative_ids"}
_TEXT_KEYS = {"query", "pos", "neg"}
# FlagEmbedding's files may carry these too: names, and what bi-encoders are prompted with.
_IGNORED_TEXT_KEYS = {"id", "pos_id", "neg_id", "prompt", "type"}

Targets = Literal["labels", "teacher_scores"]
"""What a loss may train on besides the place of the positive: a field of `Group`."""


@dataclass(frozen=True)
class Group:
    """One query with a relevant document and documents to tell it from."""

    query_id: str
    positive_id: str
    negative_ids: tuple[str, ...]

    labels: tuple[float, ...] | None = None
    """Grades of relevance, at least 0, of the positive (above 0) and of each negative."""
    teacher_scores: tuple[float, ...] | None = None
    """Scores of another model for the positive and for each negative; of any scale."""


@dataclass(frozen=True)
class TrainingData:
    """Groups with the texts that their ids stand for."""

    groups: Sequence[Group]
    queries: Mapping[str, str]
    documents: Mapping[str, str]


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
    for where, line in _lines(path, _ID_KEYS, {*LABEL_KEYS, *SCORE_KEYS}):
        query_id = _ids(line, "query_id", where)
        positive_id = _ids(line, "positive_id", where)
        negative_ids = line["negative_ids"]
        _check_strings(negative_ids, "negative_ids", where)
        _check_size(len(negative_ids), min_negatives, where)
        if len({positive_id, *negative_ids}) != 1 + len(negative_ids):
            raise InputError(f"{where}: a document is named twice; each may be there once")
        for kind, ids, known in (
            ("query", [query_id], queries),
            ("document", [positive_id, *negative_ids], documents),
        ):
            unknown = [name for name in ids if known is not None and name not in known]
            if unknown:
                raise InputError(f"{where}: {kind} {unknown[0]!r} is not in the collection")
        targets = read_labels(line, where), read_scores(line, where)
        groups.append(Group(query_id, positive_id, tuple(negative_ids), *targets))
    return groups


def read_text_groups(path: str | Path, *, min_negatives: int = 1) -> TrainingData:
    """Read a file of groups by texts (FlagEmbedding's layout): one group for each positive.

    Prompts and types that such files may carry are not used. Documents are numbered in order of
    appearance, equal texts once, with the score that comes first; a query is named for its line.

    Raises:
        InputError: naming file and line: wrong keys, no positive, too few negatives, a positive
            among its negatives, scores that do not fit.
    """
    groups, queries = [], {}
    names: dict[str, str] = {}
    for where, line in _lines(path, _TEXT_KEYS, {*_IGNORED_TEXT_KEYS, *TEXT_SCORE_KEYS}):
        if not isinstance(line["query"], str):
            raise InputError(f"{where}: 'query': got {line['query']!r}; a string is needed")
        _check_strings([line["query"]], "query", where)
        for key in ("pos", "neg"):
            _check_strings(line[key], key, where)
        if not line["pos"]:
            raise InputError(f"{where}: 'pos' is empty; a group needs a positive")
        negatives = list(dict.fromkeys(line["neg"]))
        _check_size(len(negatives), min_negatives, where)
        if set(line["pos"]) & set(negatives):
            raise InputError(f"{where}: a text is both in 'pos' and in 'neg'")
        query_id = f"line{where.rpartition(':')[2]}"
        queries[query_id] = line["query"]
        negative_ids = tuple(names.setdefault(text, f"text{len(names)}") for text in negatives)
        scores = read_text_scores(line, where)
        for text in dict.fromkeys(line["pos"]):
            positive_id = names.setdefault(text, f"text{len(names)}")
            of_group = None if scores is None else tuple(scores[t] for t in (text, *negatives))
            groups.append(Group(query_id, positive_id, negative_ids, teacher_scores=of_group))
    return TrainingData(groups, queries, {name: text for text, name in names.items()})


def read_training_data(
    path: str | Path,
    *,
    queries: Mapping[str, str] | None = None,
    documents: Mapping[str, str] | None = None,
    min_negatives: int = 1,
    targets: Targets | None = None,
) -> TrainingData:
    """Read a file of groups in either layout, with the texts to train on.

    Args:
        queries: query id -> text of the collection; needed for groups by ids.
        documents: document id -> text of the collection; needed for groups by ids.
        min_negatives: as for `read_groups`.
        targets: what the loss trains on. Teacher scores must be there for every group; labels for
            every group or for none, where the positive counts 1 and the others 0.

    Raises:
        InputError: as `read_groups` and `read_text_groups`, or groups by ids without a collection,
            or groups without their targets.
    """
    if _is_by_texts(path):
        data = read_text_groups(path, min_negatives=min_negatives)
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
    """Copy a file of groups in either layout, with teacher scores, all or nothing.

    Whatever else its lines hold stays as it is.

    Args:
        groups: those of `source`, as `read_training_data` gave them, with `teacher_scores`.
    """
    rest = iter(groups)
    is_by_texts = _is_by_texts(source)
    with atomic_open(target) as file:
        for _, line in read_jsonl(source):
            if is_by_texts:
                texts = tuple(dict.fromkeys(line["pos"])), tuple(dict.fromkeys(line["neg"]))
                scored = [_scores_of(next(rest)) for _ in texts[0]]
                positives = dict(zip(texts[0], (scores[0] for scores in scored), strict=True))
                negatives = dict(zip(texts[1], scored[0][1:], strict=True))
                line["pos_scores"] = [positives[text] for text in line["pos"]]
                line["neg_scores"] = [negatives[text] for text in line["neg"]]
            else:
                line["positive_score"], *line["negative_scores"] = _scores_of(next(rest))
            _write_line(file, line)


def _scores_of(group: Group) -> tuple[float, ...]:
    assert group.teacher_scores is not None, "score the groups first"
    return group.teacher_scores


def _write_line(file: IO[str], line: Mapping[str, Any]) -> None:
    file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _is_by_texts(path: str | Path) -> bool:
    return "query" in next(read_jsonl(path), (0, {}))[1]


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


def _lines(
    path: str | Path, needed: set[str], ignored: set[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ("file:line", object) of lines that have the needed keys and no unknown ones."""
    where = None
    for number, line in read_jsonl(path):
        where = f"{path}:{number}"
        missing, unknown = needed - line.keys(), line.keys() - needed - ignored
        if missing or unknown:
            found = "lacks " + ", ".join(sorted(missing)) if missing else ""
            found = found or "has an unknown key, " + ", ".join(sorted(unknown))
            raise InputError(f"{where}: {found}; a group's keys are {', '.join(sorted(needed))}")
        yield where, line
    if where is None:
        raise InputError(f"{path}: no groups")


def _ids(line: dict[str, Any], key: str, where: str) -> str:
    if not isinstance(line[key], str) or not line[key]:
        raise InputError(f"{where}: {key!r}: got {line[key]!r}; an id is needed")
    return line[key]


def _check_strings(value: Any, key: str, where: str) -> None:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(f"{where}: {key!r}: a list of strings is needed")
    if not all(map(is_unicode, value)):
        raise InputError(f"{where}: {key!r}: half of a surrogate pair; it is no Unicode text")


def _check_size(negatives: int, needed: int, where: str) -> None:
    if negatives < needed:
        raise InputError(
            f"{where}: {negatives} negatives; at least {needed} are needed: mine more, or allow "
            "groups with fewer (min_negatives)"
        )
