"""Does the steps of a plan, each once, in this process, and shows what each of them says.

In one process, so that nothing goes on behind a start that was killed: a step's own process could
survive it and write into files that the next start reads.
"""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

from scripts.reproduction.records import Records
from scripts.reproduction.steps import Step

RECORDS_FOLDER = "steps"


def open_records(output: Path, *, redo_changed: bool) -> Records:
    """The records of the reproduction in `output`."""
    return Records(output / RECORDS_FOLDER, redo_changed=redo_changed)


def describe_steps(steps: Sequence[Step], records: Records, *, with_commands: bool) -> list[str]:
    """A numbered line for each step that says whether it is done, perhaps with its command below.

    Raises:
        InputError: a step was done otherwise, see `Records.is_done`.
    """
    lines = []
    for number, step in enumerate(steps, start=1):
        status = "done" if records.is_done(step) else "to do"
        lines.append(f"{_numbered(number, steps)} {status:5}  {step.name}: {step.about}")
        if with_commands:
            lines.append(f"    {step.command_line()}")
    return lines


def do_steps(steps: Sequence[Step], records: Records, *, say: Callable[[str], None]) -> None:
    """Do what is not done yet, in order.

    Raises:
        InputError: from a step, or one that was done otherwise.
        TrainingStoppedError: a signal stopped the training; the same call goes on.
    """
    for number, step in enumerate(steps, start=1):
        with records.alone(step, say=say):
            if records.is_done(step):
                say(f"{_numbered(number, steps)} kept: {step.name}")
                continue
            say(f"\n{_numbered(number, steps)} {step.name}: {step.about}")
            say(step.command_line())
            begin = perf_counter()
            importlib.import_module(step.module).main(list(step.arguments))
            records.write(step)
            say(f"{step.name}: done in {perf_counter() - begin:.0f} s")


def _numbered(number: int, steps: Sequence[Step]) -> str:
    return f"[{number:{len(str(len(steps)))}}/{len(steps)}]"
