"""YAML layers of options, read strictly, and the values that they leave to whoever runs them.

A recipe that does not know a value says so and why, instead of guessing:

    optimizer:
      learning_rate: "REQUIRED: the paper does not print it; 2e-5 is usual at this size"

Such a key has no value until a later layer or the command line gives one.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from jaxrank.errors import InputError

_REQUIRED = re.compile(r"REQUIRED(?!\w)[\s:,;.-]*(?P<reason>.*)", re.DOTALL)


class Required(NamedTuple):
    """A key that a layer leaves open."""

    layer: str
    key: str
    """Dotted, as on the command line."""
    reason: str
    """May be empty."""

    def __str__(self) -> str:
        reason = f": {self.reason}" if self.reason else ""
        return f"{self.layer}: {self.key} is required (give --{self.key} VALUE){reason}"


def read_layer(path: str) -> dict[str, Any]:
    """The keys and values of a YAML file.

    Raises:
        InputError: no such file, not UTF-8, not YAML, a key that is there twice, or no mapping.
    """
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8-sig"), _UniqueKeys)
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"--config {path}: no such file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error.reason} at byte {error.start})") from None
    except yaml.YAMLError as error:
        raise InputError(_explain(path, error)) from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: keys with values are needed, got {type(content).__name__}")
    return content


def _explain(path: str, error: yaml.YAMLError) -> str:
    """File, line and problem, without the picture of the line that the parser draws."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return f"{path}: not valid YAML ({' '.join(str(error).split())})"
    mark = error.problem_mark
    context = f"{error.context}, " if error.context else ""
    where = f"{path}:{mark.line + 1}"
    return f"{where}: not valid YAML ({context}{error.problem}, column {mark.column + 1})"


def reason_of(value: Any) -> str | None:
    """Why a value is left open; None: it is not.

    >>> reason_of("REQUIRED: not known"), reason_of("REQUIRED"), reason_of(2e-5)
    ('not known', '', None)
    """
    if isinstance(value, list):
        return next((reason for item in value if (reason := reason_of(item)) is not None), None)
    match = _REQUIRED.fullmatch(value) if isinstance(value, str) else None
    return None if match is None else " ".join(match["reason"].split())


def without_required(content: Mapping[str, Any]) -> dict[str, Any]:
    """A layer without the keys that it leaves open, and without sections that hold nothing else."""
    kept = {}
    for key, value in content.items():
        if reason_of(value) is not None:
            continue
        if isinstance(value, dict) and value:
            value = without_required(value)
            if not value:
                continue
        kept[key] = value
    return kept


def find_required(
    layers: Sequence[tuple[str, Mapping[str, Any]]], given: Sequence[str]
) -> list[Required]:
    """The keys that are still open after all layers and the command line.

    Args:
        layers: name and content, in the order in which they win.
        given: dotted keys of the command line.
    """
    missing: dict[str, Required] = {}
    for layer, content in layers:
        for key, value in _leaves(content):
            missing = {path: item for path, item in missing.items() if not _gives(key, path)}
            reason = reason_of(value)
            if reason is not None:
                missing[key] = Required(layer, key, reason)
    return [item for key, item in missing.items() if not any(_gives(name, key) for name in given)]


def _leaves(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values, sections opened."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _gives(given: str, key: str) -> bool:
    """Whether the key `given` is `key`, or a part or the whole of it."""
    return f"{given}.".startswith(f"{key}.") or f"{key}.".startswith(f"{given}.")


class _UniqueKeys(yaml.SafeLoader):
    """YAML without repeated keys, of which the last would win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of a node whose keys are all different."""
        seen: list[Any] = []  # no set, since a key may be a list
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is there twice", key.start_mark
                )
            seen.append(key.value)
        return super().construct_mapping(node, deep)
