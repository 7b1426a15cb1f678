"""Types of options as a user knows them, e.g. "linear, classification or null"."""

import types
import typing
from pathlib import Path
from typing import Any

_ONE = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    type(None): "null",
    dict: "keys with values",
}
_SEVERAL = {int: "whole numbers", float: "numbers", str: "texts", Path: "paths"}


def in_words(hint: Any) -> str:
    """A type in words.

    >>> in_words(int | None), in_words(tuple[Path, ...])
    ('a whole number or null', 'a list of paths (blanks between them)')
    """
    *names, last = _choices(hint)
    return f"{', '.join(names)} or {last}" if names else last


def _choices(hint: Any) -> list[str]:
    origin, members = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return [str(member) for member in members]
    if origin in (typing.Union, types.UnionType):
        return [choice for member in members for choice in _choices(member)]
    if origin is tuple:
        several = _SEVERAL.get(members[0], "values")
        count = "" if Ellipsis in members else f"{len(members)} "
        return [f"a list of {count}{several} (blanks between them)"]
    return [_ONE.get(origin or hint, str(hint))]
