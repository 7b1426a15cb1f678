"""What --help shows: types in words, and lists as they are typed.

Imported late, with jsonargparse, which takes 0.2 s.
"""

import textwrap
import typing
from argparse import Action
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter

from jaxrank.option_types import in_words

_CONFIG = (
    "YAML file with values of these options. May be given several times: later ones win, and "
    "options given by name win over all."
)
_PRINT_CONFIG = (
    "Print all options as YAML that --config reads, and exit. With =skip_default: only those that "
    "are not at their defaults."
)


def make_parser(program: str) -> ArgumentParser:
    """A parser whose help a user without Python can read.

    Args:
        program: the module's name, as in `python -m program`.
    """
    parser = ArgumentParser(
        prog=f"python -m {program}", exit_on_error=False, formatter_class=_Formatter
    )
    parser.add_argument("--config", action="config", help=_CONFIG)
    for action in parser._actions:
        if "--print_config" in action.option_strings:
            action.help = _PRINT_CONFIG
    return parser


class _Formatter(DefaultHelpFormatter):
    def _get_type_str(self, action: Action) -> str | None:
        hint = _hint(action)
        return super()._get_type_str(action) if hint is None else in_words(hint)

    def _get_help_string(self, action: Action) -> str:
        text = super()._get_help_string(action)
        if isinstance(action.default, (list, tuple)):
            default = " ".join(map(str, action.default)) or "none"
            text = text.replace("%(default)s", default.replace("%", "%%"))
        return text

    def _format_args(self, action: Action, default_metavar: Any) -> str:
        if typing.get_origin(_hint(action)) is tuple:
            return "ITEM ..."
        return super()._format_args(action, default_metavar)

    def _split_lines(self, text: str, width: int) -> list[str]:
        # A choice that is broken at its hyphen cannot be copied.
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


def _hint(action: Action) -> Any:
    """The type of a field; None for what is no field."""
    return getattr(action, "_typehint", None)
