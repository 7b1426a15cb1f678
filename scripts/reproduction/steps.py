"""One step of a reproduction: the command that does it, what it reads and what it leaves."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.reproduction.fingerprints import Input


@dataclass(frozen=True)
class Step:
    """A command with its files.

    Attributes:
        name: unique below the output folder; also where the step's record lies.
        about: a line for people.
        module: the command's module, whose `main` takes the arguments.
        inputs: what the result depends on besides the arguments.
        outputs: what the command leaves, complete or not at all.
        checks_itself: the command knows its own earlier result, goes on with it or refuses it; so
            with other options it is called and not refused beforehand.
        is_recorded: False for what takes no time and is done each time.
    """

    name: str
    about: str
    module: str
    arguments: tuple[str, ...]
    inputs: tuple[Input, ...]
    outputs: tuple[Path, ...]
    checks_itself: bool = False
    is_recorded: bool = True

    def command_line(self) -> str:
        """The command as one would type it."""
        return shlex.join(["python", "-m", self.module, *self.arguments])


def arguments(*values: object) -> tuple[str, ...]:
    """Options and their values as words of a command line; a list gives several words."""
    words: list[str] = []
    for value in values:
        words += map(str, value) if isinstance(value, (list, tuple)) else [str(value)]
    return tuple(words)


def option(name: str, value: object | None) -> Sequence[object]:
    """`name value`, or nothing for None."""
    return () if value is None else (name, value)
