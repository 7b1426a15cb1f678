"""What a training group is, and what every layout of a groups file checks of its lines."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxrank.data.jsonl_entries import is_unicode
from jaxrank.errors import InputError
from jaxrank.files import read_jsonl


@dataclass(frozen=True, slots=True)
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


def read_group_lines(
    path: str | Path, needed: set[str], allowed: set[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ("file:line", object) of lines that have the needed keys and no unknown ones.

    Args:
        allowed: keys that may be there too.

    Raises:
        InputError: naming file and line; or a file without groups.
    """
    where = None
    for number, line in read_jsonl(path):
        where = f"{path}:{number}"
        missing, unknown = needed - line.keys(), line.keys() - needed - allowed
        if missing or unknown:
            found = "lacks " + ", ".join(sorted(missing)) if missing else ""
            found = found or "has an unknown key, " + ", ".join(sorted(unknown))
            raise InputError(f"{where}: {found}; a group's keys are {', '.join(sorted(needed))}")
        yield where, line
    if where is None:
        raise InputError(f"{path}: no groups")


def read_id(line: Mapping[str, Any], key: str, where: str) -> str:
    """The id that a line has under `key`; InputError where it is none."""
    value = line[key]
    if not isinstance(value, str) or not value:
        raise InputError(f"{where}: {key!r}: got {value!r}; an id is needed")
    return value


def read_text(line: Mapping[str, Any], key: str, where: str) -> str:
    """The text that a line has under `key`; InputError where it is none."""
    value = line[key]
    if not isinstance(value, str):
        raise InputError(f"{where}: {key!r}: got {value!r}; a string is needed")
    check_strings([value], key, where)
    return value


def check_strings(value: Any, key: str, where: str) -> None:
    """Refuse what is not a list of texts."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(f"{where}: {key!r}: a list of strings is needed")
    if not all(map(is_unicode, value)):
        raise InputError(f"{where}: {key!r}: half of a surrogate pair; it is no Unicode text")


def check_size(negatives: int, needed: int, where: str) -> None:
    """Refuse a group with fewer negatives than needed."""
    if negatives < needed:
        raise InputError(
            f"{where}: {negatives} negatives; at least {needed} are needed: mine more, or allow "
            "groups with fewer (min_negatives)"
        )
