"""Foreign model configurations as data: which attribute is which of our fields, and what is fixed.

Every attribute of a foreign config.json is in one of four places: it fills a field of ours, it must
have a value under which our model computes the same, it is known not to matter, or it is refused
by name. Nothing passes unread, so a checkpoint never computes something else than its author's.
"""

import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxrank.errors import InputError

INFINITY = {"__float__": "Infinity"}
"""What transformers writes for it, since JSON has no such number."""

_LARGEST_SIZE = 1 << 24
_MOST_LAYERS = 1_000
_MISSING = object()


@dataclass(frozen=True)
class ConfigFormat:
    """One library's way of writing down an architecture.

    Attributes:
        sizes: their attribute -> our field; must be there, and are whole numbers.
        options: their attribute -> our field; our field's default holds where they are left out.
        fixed: attribute -> values that we compute, the first of which is written on export. A
            left-out attribute has the first value in the foreign library too.
        derived: attribute -> our property that it must equal, where it is there at all.
        word_for_none: the word that stands for None of ours, if they do not write null.
        ignored: attributes that do not change what is computed here.
        sections: attribute that is an object -> its own format, e.g. state-spaces' ssm_cfg; what
            it says outweighs the attributes outside of it, and must agree with other sections.
    """

    sizes: Mapping[str, str]
    options: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    derived: Mapping[str, str] = field(default_factory=dict)
    word_for_none: str | None = None
    ignored: frozenset[str] = frozenset()
    sections: Mapping[str, "ConfigFormat"] = field(default_factory=dict)


def read_config(
    format: ConfigFormat, attributes: Mapping[str, Any], config_class: type, *, where: str
) -> Any:
    """Our configuration, of `config_class`, that the attributes describe.

    Raises:
        InputError: one line with every attribute that is missing, of the wrong type, unsupported
            in its value or unknown.
    """
    fields, problems = _read(format, attributes, typing.get_type_hints(config_class), prefix="")
    if problems:
        raise InputError(f"{where}: {'; '.join(problems)}")
    try:
        config = config_class(**fields)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    for their, our in format.derived.items():
        if attributes.get(their, getattr(config, our)) != getattr(config, our):
            raise InputError(
                f"{where}: {their} is {_shown(attributes[their])}; the other sizes make it "
                f"{getattr(config, our)}, and nothing else is supported"
            )
    return config


def write_config(format: ConfigFormat, config: Any) -> dict[str, Any]:
    """The attributes that a configuration of ours has in that format.

    Of the sections only those are written that say what nothing before them does.
    """
    names = {**format.sizes, **format.options, **format.derived}
    values = {their: getattr(config, our) for their, our in names.items()}
    attributes = {their: allowed[0] for their, allowed in format.fixed.items()}
    attributes |= {
        their: format.word_for_none if value is None else value for their, value in values.items()
    }
    said = {*format.sizes.values(), *format.options.values()}
    for name, section in format.sections.items():
        if not _fields_of(section) <= said:
            inner = write_config(section, config)
            attributes[name] = {their: value for their, value in inner.items() if value is not None}
            said |= _fields_of(section)
    return attributes


def _fields_of(format: ConfigFormat) -> set[str]:
    """The fields of ours that a format fills, and sections within it."""
    fields = {*format.sizes.values(), *format.options.values()}
    return fields.union(*map(_fields_of, format.sections.values()))


def _read(
    format: ConfigFormat, attributes: Mapping[str, Any], hints: Mapping[str, Any], *, prefix: str
) -> tuple[dict[str, Any], list[str]]:
    fields: dict[str, Any] = {}
    problems = []
    for their, our in {**format.sizes, **format.options}.items():
        value = attributes.get(their, _MISSING)
        if typing.get_origin(hints[our]) is tuple:
            value = _interval(value)
        if value is _MISSING:
            if their in format.sizes:
                problems.append(f"{prefix}{their} is missing")
        elif value is not None and value == format.word_for_none:
            fields[our] = None
        elif fault := _fault(value, our, hints[our]):
            problems.append(f"{prefix}{their} is {_shown(value)}; needed is {fault}")
        else:
            is_number = float in (hints[our], *typing.get_args(hints[our]))
            fields[our] = float(value) if is_number and isinstance(value, int) else value
    for their, allowed in format.fixed.items():
        value = attributes.get(their, allowed[0])
        if not any(_same(value, choice) for choice in allowed):
            wanted = " or ".join(_shown(choice) for choice in allowed)
            problems.append(f"{prefix}{their} is {_shown(value)}; only {wanted} is supported")
    said: dict[str, Any] = {}
    for name, section in format.sections.items():
        inner = attributes.get(name) or {}
        if not isinstance(inner, dict):
            problems.append(f"{prefix}{name} is {_shown(inner)}; needed is an object")
            continue
        found, faults = _read(section, inner, hints, prefix=f"{prefix}{name}.")
        problems += faults
        for our, value in found.items():
            if said.setdefault(our, value) != value:
                problems.append(
                    f"{prefix}{name} has {_shown(value)} where another section has "
                    f"{_shown(said[our])}"
                )
    fields |= said
    known = {*format.sizes, *format.options, *format.fixed, *format.derived}
    known |= {*format.ignored, *format.sections}
    unknown = sorted(set(attributes) - known)
    if unknown:
        names = ", ".join(prefix + name[:80] for name in unknown)
        problems.append(
            f"unknown to this family: {names} (delete what does not change the computation)"
        )
    return fields, problems


def _interval(value: Any) -> Any:
    """A list as a tuple, with infinity for what transformers writes in its place."""
    if not isinstance(value, list):
        return value
    return tuple(float("inf") if end == INFINITY else end for end in value)


def _fault(value: Any, our: str, hint: Any) -> str | None:
    """What the field needs, if the value is not that."""
    types = typing.get_args(hint) or (hint,)
    if typing.get_origin(hint) is tuple:
        is_pair = isinstance(value, tuple) and len(value) == len(types)
        is_fine = is_pair and not any(_fault(v, our, float) for v in value)
        return None if is_fine else f"a list of {len(types)} numbers"
    if value is None and type(None) in types:
        return None
    if bool in types:
        return None if isinstance(value, bool) else "true or false"
    if int in types:
        most = _MOST_LAYERS if our in ("num_layers", "num_decoder_layers") else _LARGEST_SIZE
        least = 0 if our.endswith("_token_id") else 1
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        is_fine = is_whole and least <= value <= most
        return None if is_fine else f"a whole number from {least} to {most}"
    if isinstance(types[0], str):  # a Literal's words
        return None if value in types else " or ".join(types)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_fine = is_number and (isinstance(value, float) or abs(value) <= _LARGEST_SIZE)
    return None if is_fine else "a number"


def _same(value: Any, choice: Any) -> bool:
    """Equality that tells True from 1 and None from False."""
    return type(value) is type(choice) and bool(value == choice)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
