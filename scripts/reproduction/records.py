"""Records of steps that are done: by which command, from what, and what came of it.

A step counts as done while its record says the same command and the same inputs, and its outputs
are what they were. Since the commands write their files as a whole, and the record comes last,
whatever a kill leaves is either done or not begun as far as the next start can tell.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxrank.errors import InputError
from jaxrank.files import atomic_open, exclusive, read_json
from scripts.reproduction.fingerprints import Fingerprints
from scripts.reproduction.steps import Step

# They change speed and memory alone.
_HARMLESS = ("--batch_size", "--threads")


class Records:
    """The records below a folder, one file a step."""

    def __init__(self, folder: Path, *, redo_changed: bool = False) -> None:
        """`redo_changed`: a step that was done otherwise is to be done again, and not refused."""
        self._folder = folder
        self._redo_changed = redo_changed
        self._fingerprints = Fingerprints()

    def is_done(self, step: Step) -> bool:
        """Whether the step is done as it is wanted now.

        Raises:
            InputError: it is done, but by another command, from other inputs, or its output was
                changed since.
        """
        path = self._path(step)
        if not step.is_recorded or not path.exists():
            return False
        if not all(output.exists() for output in step.outputs):
            return False
        differences = self._differences(step, read_json(path))
        if not differences:
            return True
        if step.checks_itself or self._redo_changed:
            return False
        raise InputError(
            f"{path}: this step was done otherwise ({'; '.join(differences)}); give what it was "
            "done with, choose another --output, or pass --redo_changed true to do such steps again"
        )

    def write(self, step: Step) -> None:
        """Note that the step is done."""
        if step.is_recorded:
            with atomic_open(self._path(step)) as file:
                json.dump(self._describe(step), file, indent=1)
                file.write("\n")

    @contextmanager
    def alone(self, step: Step, *, say: Callable[[str], None]) -> Iterator[None]:
        """Let one process at a time do a step; the lock goes with the process, however it ends."""
        waiting = f"{step.name}: another process does this step; waiting for it"
        with exclusive(self._path(step).with_suffix(".lock"), when_taken=lambda: say(waiting)):
            yield

    def _path(self, step: Step) -> Path:
        return self._folder / f"{step.name}.json"

    def _describe(self, step: Step) -> dict[str, Any]:
        return {
            "module": step.module,
            "arguments": list(step.arguments),
            "inputs": {str(source): self._fingerprints.of(source) for source in step.inputs},
            "outputs": {str(path): self._fingerprints.of(path) for path in step.outputs},
        }

    def _differences(self, step: Step, record: Mapping[str, Any]) -> list[str]:
        there, here = record.get("arguments", []), list(step.arguments)
        found = _compare(_by_option(there), _by_option(here))
        known = {**record.get("inputs", {}), **record.get("outputs", {})}
        # An input that is gone, say an index that was deleted to save space, cannot have changed.
        for source in (*step.inputs, *step.outputs):
            if source.exists() and known.get(str(source)) != self._fingerprints.of(source):
                found.append(f"{source} is not what it was then")
        return found


def _by_option(words: list[str]) -> dict[str, str]:
    """`--option` -> its values, with `--config` given twice as one."""
    values: dict[str, list[str]] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name, _, value = word.partition("=")
            word = value
        if word:
            values.setdefault(name, []).append(word)
        else:
            values.setdefault(name, [])
    return {name: " ".join(given) for name, given in values.items()}


def _compare(there: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    return [
        f"{name}: {there.get(name, 'not given')} then, {here.get(name, 'not given')} now"
        for name in sorted((there.keys() | here.keys()) - {*_HARMLESS})
        if there.get(name) != here.get(name)
    ]
