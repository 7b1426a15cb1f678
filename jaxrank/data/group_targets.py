"""Labels and teacher scores in a line of a groups file, read strictly."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxrank.errors import InputError

LABEL_KEYS = ("positive_label", "negative_labels")
SCORE_KEYS = ("positive_score", "negative_scores")
TEXT_SCORE_KEYS = ("pos_scores", "neg_scores")

_LARGEST_FLOAT32 = float(np.finfo(np.float32).max)


def read_labels(line: dict[str, Any], where: str) -> tuple[float, ...] | None:
    """Grades of a group by ids, the positive's first; None where the line has none."""
    labels = _positive_and_negatives(line, LABEL_KEYS, where)
    if labels is None:
        return None
    if labels[0] <= 0:
        raise InputError(f"{where}: 'positive_label': got {labels[0]}; a grade above 0 is needed")
    if min(labels) < 0:
        raise InputError(
            f"{where}: 'negative_labels': got {min(labels)}; a grade of at least 0 is needed"
        )
    return labels


def read_scores(line: dict[str, Any], where: str) -> tuple[float, ...] | None:
    """Teacher scores of a group by ids, the positive's first; None where the line has none."""
    return _positive_and_negatives(line, SCORE_KEYS, where)


def read_text_scores(line: dict[str, Any], where: str) -> dict[str, float] | None:
    """Text -> teacher score in a line by texts; None where it has none. A text's first one counts.

    Empty lists are what FlagEmbedding's tools write where there are no scores.
    """
    values = [line.get(key) for key in TEXT_SCORE_KEYS]
    if all(value is None or value == [] for value in values):
        return None
    scores: dict[str, float] = {}
    for texts, key, numbers in zip(
        (line["pos"], line["neg"]), TEXT_SCORE_KEYS, values, strict=True
    ):
        for text, number in zip(texts, _numbers(numbers, key, len(texts), where), strict=True):
            scores.setdefault(text, number)
    return scores


def read_passage_scores(
    passages: Mapping[str, Mapping[str, Any]], where: str
) -> dict[str, float] | None:
    """Teacher scores of Tevatron's passages of one line, by docid; None where none has one."""
    given = {docid: passage.get("score") for docid, passage in passages.items()}
    if all(score is None for score in given.values()):
        return None
    scores = _numbers(list(given.values()), "score", len(given), where)
    return dict(zip(given, scores, strict=True))


def _positive_and_negatives(
    line: dict[str, Any], keys: tuple[str, str], where: str
) -> tuple[float, ...] | None:
    first, others = (line.get(key) for key in keys)
    if first is None and others is None:
        return None
    if isinstance(first, list):
        raise InputError(f"{where}: {keys[0]!r}: got {first!r}; a finite number is needed")
    return (
        *_numbers([first], keys[0], 1, where),
        *_numbers(others, keys[1], len(line["negative_ids"]), where),
    )


def _numbers(value: Any, key: str, size: int, where: str) -> list[float]:
    if not isinstance(value, list) or len(value) != size:
        found = f"{len(value)} numbers" if isinstance(value, list) else repr(value)
        raise InputError(f"{where}: {key!r}: got {found}; {size} are needed, one for each document")
    for number in value:
        # To Python, true is a number; to float32, 1e39 is infinite.
        is_number = isinstance(number, int | float) and not isinstance(number, bool)
        if not is_number or not abs(number) <= _LARGEST_FLOAT32:
            raise InputError(f"{where}: {key!r}: got {number!r}; a finite number is needed")
    return [float(number) for number in value]
