"""Options of the commands: YAML layers and the command line, read into a frozen dataclass.

The attribute docstrings of the dataclass are the help text. Values come from YAML layers (`--config
recipe.yaml --config model.yaml`, later ones win) and from the command line
(`--optimizer.learning_rate 1e-5`, which wins over both; dashes stand for underscores). jsonargparse
does the typing; this module and `option_help` are the only ones that know it.
"""

import dataclasses
import difflib
import json
import re
import sys
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from jaxrank.errors import InputError
from jaxrank.option_types import in_words
from jaxrank.yaml_layers import find_required, read_layer, reason_of, without_required

Options = TypeVar("Options")

_REFUSED_VALUE = re.compile(
    r'Parser key "(?P<key>[^"]+)":.*?(?:Got value|Given value): (?P<value>.*)', re.DOTALL
)


def parse(
    options: type[Options],
    program: str,
    argv: Sequence[str] | None = None,
    *,
    first: str | None = None,
) -> Options:
    """Read the command line and its YAML layers into an instance of the dataclass `options`.

    Later layers win over earlier ones, and keys of the command line over all layers, wherever they
    stand.

    Args:
        options: a frozen dataclass; nested dataclasses are sections, tuples take several values.
        program: the module's name, as in `python -m program`.
        argv: the arguments; None takes those of the process.
        first: the key that arguments in front of all keys belong to.

    Raises:
        InputError: an unknown key (the nearest known one is named), a value of the wrong type, a
            missing required key, an unreadable file, a key that a layer leaves open (`REQUIRED`,
            see yaml_layers) and nothing after it gives.
    """
    # Imported late: it takes 0.2 s, which no importer of `run` should pay.
    from jsonargparse import ArgumentError, set_parsing_settings

    from jaxrank.option_help import make_parser

    given = [_underscored(argument) for argument in (sys.argv[1:] if argv is None else argv)]
    if first is not None and given and not given[0].startswith("-"):
        given.insert(0, f"--{first}")
    arguments = _check_keys(options, _layers_first(given))
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = make_parser(program)
    parser.add_class_arguments(options)
    try:
        values = parser.parse_args(_join_tuples(options, arguments))
        instance = parser.instantiate(values)
    except ArgumentError as error:
        raise InputError(_explain(options, str(error))) from None
    fields = [field.name for field in dataclasses.fields(typing.cast(Any, options))]
    return options(**{name: instance[name] for name in fields})


def _underscored(argument: str) -> str:
    """`--document-states=a-b` as `--document_states=a-b`."""
    if not argument.startswith("--"):
        return argument
    name, separator, value = argument.partition("=")
    return f"--{name[2:].replace('-', '_')}{separator}{value}"


def _layers_first(arguments: Sequence[str]) -> list[str]:
    """The arguments with every `--config` in front, since the parser lets the later one win."""
    layers: list[str] = []
    others: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--config":
            layers += [argument, *rest[:1]]
            del rest[:1]
        else:
            (layers if argument.startswith("--config=") else others).append(argument)
    return [*layers, *others]


def as_yaml(options: Any) -> str:
    """The resolved options as YAML that `--config` reads back."""
    return yaml.safe_dump(as_plain(options), sort_keys=False)


def as_plain(value: Any) -> Any:
    """Dataclasses, paths and tuples as dicts, strings and lists, for YAML and JSON."""
    if dataclasses.is_dataclass(value):
        return {f.name: as_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [as_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _check_keys(options: type, arguments: Sequence[str]) -> list[str]:
    """The arguments, with layers in place of files that leave keys open.

    Refuses unknown keys in the YAML layers and on the command line, naming the nearest, and keys
    that stay open.
    """
    layers: list[tuple[str, dict[str, Any]]] = []
    given: list[str] = []
    checked: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, separator, value = argument.partition("=")
        if name == "--config":
            path = value if separator else next(iter(rest), "")
            del rest[: 0 if separator else 1]
            content = read_layer(path)
            _check_mapping(options, content, where=path, prefix="")
            layers.append((path, content))
            closed = without_required(content)
            # The parser takes a layer's text as well as its path.
            checked += ["--config", path if closed == content else yaml.safe_dump(closed)]
            continue
        if name.startswith("--") and not name.startswith(("--help", "--print_config")):
            given.append(name.removeprefix("--"))
            _check_path(options, given[-1].split("."), shown=name)
        checked.append(argument)
    missing = find_required(layers, given)
    if missing and not {"--help", "-h"} & {*arguments}:
        raise InputError("; ".join(map(str, missing)))
    return checked


def _check_mapping(options: Any, content: dict[str, Any], *, where: str, prefix: str) -> None:
    sections = _sections(options)
    hints = typing.get_type_hints(options)
    for key, value in content.items():
        shown = f"{where}: {prefix}{key}"
        _check_name(str(key), sections, shown=shown)
        section = sections[str(key)]
        if reason_of(value) is not None:
            continue
        if dataclasses.is_dataclass(section):
            if not isinstance(value, dict):
                found = "null" if value is None else repr(value)
                raise InputError(f"{shown}: got {found}; keys with values are needed")
            _check_mapping(section, value, where=where, prefix=f"{prefix}{key}.")
        elif value is None and type(None) not in typing.get_args(hints[str(key)]):
            # jsonargparse lets null pass for any type.
            raise InputError(f"{shown}: got null; {in_words(section)} is needed")


def _check_path(options: Any, path: list[str], *, shown: str) -> None:
    for name in path:
        sections = _sections(options)
        _check_name(name, sections, shown=shown)
        options = sections[name]
        if not dataclasses.is_dataclass(options):
            return


def _sections(options: Any) -> dict[str, Any]:
    """Field name -> its type, with `X | None` taken as `X`."""
    hints = typing.get_type_hints(options)
    return {f.name: _without_none(hints[f.name]) for f in dataclasses.fields(options)}


def _without_none(hint: Any) -> Any:
    members = typing.get_args(hint)
    rest = [member for member in members if member is not type(None)]
    return rest[0] if len(rest) == 1 < len(members) else hint


def _check_name(name: str, known: Mapping[str, Any], *, shown: str) -> None:
    if name in known:
        return
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    advice = f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(known)}"
    raise InputError(f"{shown}: unknown key {name!r}; {advice}")


def _tuples(options: Any) -> Iterator[tuple[str, Any]]:
    """The dotted names of all fields that are tuples, in sections too, and their first members."""
    for name, hint in _sections(options).items():
        if typing.get_origin(hint) is tuple:
            yield name, typing.get_args(hint)[0]
        elif dataclasses.is_dataclass(hint):
            yield from ((f"{name}.{path}", member) for path, member in _tuples(hint))


def _join_tuples(options: Any, arguments: Sequence[str]) -> list[str]:
    """`--runs a b` as `--runs ["a", "b"]` for every field that is a tuple."""
    tuples = {f"--{path}": member for path, member in _tuples(options)}
    joined: list[str] = []
    rest = list(arguments)
    while rest:
        joined.append(rest.pop(0))
        if joined[-1] in tuples:
            values = []
            while rest and not rest[0].startswith("--"):
                values.append(rest.pop(0))
            is_list = len(values) == 1 and values[0].startswith("[")
            if tuples[joined[-1]] is not str and not is_list:
                _check_blanks(joined[-1], values)
            joined.append(values[0] if is_list else json.dumps(values))
    return joined


def _check_blanks(option: str, values: Sequence[str]) -> None:
    """Refuse commas between paths or numbers; a file may have one in its name."""
    for value in values:
        if "," in value and not Path(value).exists():
            raise InputError(
                f"{option.removeprefix('--')}: got {value}; blanks are needed between several, as "
                f"in {option} {' '.join(value.split(','))}"
            )


def _explain(options: Any, problem: str) -> str:
    """What jsonargparse said in one line, and in our words where a value has the wrong type."""
    match = _REFUSED_VALUE.search(problem)
    if match is None:
        return _one_line(problem)
    *sections, name = match["key"].split(".")
    for section in sections:
        options = _sections(options).get(section)
        if not dataclasses.is_dataclass(options):
            return _one_line(problem)
    hint = typing.get_type_hints(options).get(name)
    if hint is None:
        return _one_line(problem)
    return f"{match['key']}: got {_one_line(match['value'])}; {in_words(hint)} is needed"


def _one_line(text: str) -> str:
    return " ".join(text.replace('Parser key "', '"').split())
