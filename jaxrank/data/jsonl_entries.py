"""One line of corpus.jsonl or queries.jsonl: an object with an id and texts, checked."""

from typing import Any

from jaxrank.errors import InputError
from jaxrank.files import BOM, decode_line, parse_json_object

_NEEDED_KEYS = ("_id", "text")
_OPTIONAL_KEYS = ("title", "url")


def parse_entry(line: bytes, where: str) -> dict[str, Any]:
    """The checked object of a line; a byte-order mark is passed over.

    Raises:
        InputError: beginning with `where`: bytes that are not UTF-8, and whatever `check_entry`
            raises.
    """
    entry = parse_json_object(decode_line(line.removeprefix(BOM), where), where=where)
    check_entry(entry, where)
    return entry


def check_entry(entry: dict[str, Any], where: str) -> None:
    """Check keys: `_id` and `text` must be there, `title` and `url` may be; all are strings.

    Raises:
        InputError: beginning with `where`: a missing key, another type, half of a surrogate pair,
            an id that `check_id` refuses.
    """
    for key in (*_NEEDED_KEYS, *_OPTIONAL_KEYS):
        value = entry.get(key, "" if key in _OPTIONAL_KEYS else None)
        if not isinstance(value, str):
            found = f"got {type(value).__name__}" if key in entry else f"has {sorted(entry)}"
            raise InputError(f"{where}: {key!r}: {found}; a string is needed")
        if not is_unicode(value):
            raise InputError(f"{where}: {key!r}: half of a surrogate pair; it is no Unicode text")
    check_id(entry["_id"], f"{where}: '_id'")


def check_id(name: str, where: str) -> None:
    """Refuse an id that a line of a run cannot hold.

    Raises:
        InputError: beginning with `where`: it is empty or has blanks in it.
    """
    if name.split() != [name]:
        raise InputError(
            f"{where}: got {name!r}; an id without blanks is needed, since runs have blanks "
            "between columns"
        )


def is_unicode(text: str) -> bool:
    """Whether a text has no lone surrogates, which JSON can spell and no tokenizer takes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
