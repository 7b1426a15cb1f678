"""Groups files that hold the texts themselves, in the layouts of FlagEmbedding and of Tevatron.

    FlagEmbedding   {"query": "...", "pos": ["...", ...], "neg": ["...", ...]}
    Tevatron        {"query_id": "...", "query": "...", "positive_passages": [PASSAGE, ...],
                     "negative_passages": [PASSAGE, ...]}
                    PASSAGE is {"docid": "...", "title": "...", "text": "..."}; title may be missing

Both may carry a teacher's scores: FlagEmbedding's as the lists "pos_scores" and "neg_scores",
Tevatron's as a "score" of each passage.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from jaxrank.data.document_text import DocumentFields, compose
from jaxrank.data.documents import DEFAULT_DOCUMENT_TEXT
from jaxrank.data.group_lines import (
    Group,
    TrainingData,
    check_size,
    check_strings,
    read_group_lines,
    read_id,
    read_text,
)
from jaxrank.data.group_targets import TEXT_SCORE_KEYS, read_passage_scores, read_text_scores
from jaxrank.errors import InputError

Layout = Literal["flag-embedding", "tevatron"]

_TEXT_KEYS = {"query", "pos", "neg"}
# FlagEmbedding's files may carry these too: names, and what bi-encoders are prompted with.
_IGNORED_TEXT_KEYS = {"id", "pos_id", "neg_id", "prompt", "type"}
PASSAGE_LISTS = ("positive_passages", "negative_passages")
_TEVATRON_KEYS = {"query_id", "query", *PASSAGE_LISTS}
_IGNORED_TEVATRON_KEYS = {"answers"}  # of questions with short answers, as Natural Questions
_PASSAGE_KEYS = {"docid", "text"}
_MORE_PASSAGE_KEYS = {"title", "score"}


def text_layout(first_line: Mapping[str, Any]) -> Layout | None:
    """Which layout with texts a file has, by its first line's keys; None: groups by ids."""
    if first_line.keys() & set(PASSAGE_LISTS):
        return "tevatron"
    return "flag-embedding" if "query" in first_line else None


def read_text_groups(path: str | Path, *, min_negatives: int = 1) -> TrainingData:
    """Read a file of groups in FlagEmbedding's layout: one group for each positive.

    Prompts and types that such files may carry are not used. Documents are numbered in order of
    appearance, equal texts once, with the score that comes first; a query is named for its line.

    Raises:
        InputError: naming file and line: wrong keys, no positive, too few negatives, a positive
            among its negatives, scores that do not fit.
    """
    groups, queries = [], {}
    names: dict[str, str] = {}
    for where, line in read_group_lines(path, _TEXT_KEYS, {*_IGNORED_TEXT_KEYS, *TEXT_SCORE_KEYS}):
        read_text(line, "query", where)
        for key in ("pos", "neg"):
            check_strings(line[key], key, where)
        if not line["pos"]:
            raise InputError(f"{where}: 'pos' is empty; a group needs a positive")
        negatives = list(dict.fromkeys(line["neg"]))
        check_size(len(negatives), min_negatives, where)
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


def read_tevatron_groups(path: str | Path, *, min_negatives: int = 1) -> TrainingData:
    """Read a file of groups in Tevatron's layout: one group for each positive passage.

    Passages and queries keep their ids; a passage that a list has twice counts once. Answers that
    such files may carry are not used.

    Raises:
        InputError: naming file and line: wrong keys, no positive, too few negatives, a positive
            among its negatives, an id that had another text before, scores that do not fit.
    """
    groups: list[Group] = []
    queries: dict[str, str] = {}
    documents: dict[str, str] = {}
    for where, line in read_group_lines(path, _TEVATRON_KEYS, _IGNORED_TEVATRON_KEYS):
        query_id = read_id(line, "query_id", where)
        _keep(queries, query_id, read_text(line, "query", where), f"{where}: query")
        for key in PASSAGE_LISTS:
            _check_passages(line[key], key, where)
        positives, negatives = (passages_by_id(line[key]) for key in PASSAGE_LISTS)
        if not positives:
            raise InputError(f"{where}: 'positive_passages' is empty; a group needs a positive")
        check_size(len(negatives), min_negatives, where)
        if both := positives.keys() & negatives.keys():
            raise InputError(f"{where}: passage {min(both)!r} is both positive and negative")
        for passage in (*line[PASSAGE_LISTS[0]], *line[PASSAGE_LISTS[1]]):
            fields = DocumentFields(passage["text"], passage.get("title") or "")
            text = compose(fields, DEFAULT_DOCUMENT_TEXT)
            _keep(documents, passage["docid"], text, f"{where}: passage")
        scores = read_passage_scores(positives | negatives, where)
        for docid in positives:
            names = (docid, *negatives)
            of_group = None if scores is None else tuple(scores[name] for name in names)
            groups.append(Group(query_id, docid, tuple(negatives), teacher_scores=of_group))
    return TrainingData(groups, queries, documents)


READERS: Mapping[Layout, Callable[..., TrainingData]] = {
    "flag-embedding": read_text_groups,
    "tevatron": read_tevatron_groups,
}
"""Layout -> what reads it, given the path and `min_negatives`."""


def passages_by_id(passages: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Passages by their docid, in the order of the list; the first of several counts."""
    found: dict[str, dict[str, Any]] = {}
    for passage in passages:
        found.setdefault(passage["docid"], passage)
    return found


def _check_passages(value: Any, key: str, where: str) -> None:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise InputError(f"{where}: {key!r}: a list of passages (docid, title, text) is needed")
    for number, passage in enumerate(value, start=1):
        at = f"{where}: {key!r}, passage {number}"
        missing = _PASSAGE_KEYS - passage.keys()
        unknown = passage.keys() - _PASSAGE_KEYS - _MORE_PASSAGE_KEYS
        if missing or unknown:
            found = f"lacks {', '.join(sorted(missing))}" if missing else ""
            found = found or f"has an unknown key, {', '.join(sorted(unknown))}"
            raise InputError(f"{at}: {found}; its keys are docid, title, text")
        read_id(passage, "docid", at)
        read_text(passage, "text", at)
        if passage.get("title") is not None:
            read_text(passage, "title", at)


def _keep(texts: dict[str, str], name: str, text: str, what: str) -> None:
    """Take the text of an id, which must be the one that it had before."""
    if texts.setdefault(name, text) != text:
        raise InputError(f"{what} {name!r} had another text before; one id needs one text")
