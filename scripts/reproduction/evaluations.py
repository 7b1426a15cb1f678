"""Run folders of the reproduce scripts and the evaluations in them.

A run folder has `evaluation/SET.json` for each set that was measured, as `jaxrank.evaluate` writes
it with the first stage as the baseline and the model's run besides.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxrank.errors import InputError
from jaxrank.files import read_json

FOLDER = "evaluation"

Evaluations = dict[str, dict[str, Any]]
"""Set -> what was measured."""


def find_run_folders(folders: Sequence[Path], sets: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """Run folders among `folders`, or in them, and those in them where no set was measured.

    A folder without run folders in it stands for itself. What is in one may be of models that are
    still at work or were measured on other sets.
    """
    found: list[Path] = []
    left_out: list[Path] = []
    for folder in folders:
        inside = sorted(path.parent for path in folder.glob(f"*/{FOLDER}"))
        measured = [path for path in inside if _paths(path, sets)]
        found += measured or [folder]
        left_out += [path for path in inside if measured and path not in measured]
    return list(dict.fromkeys(found)), left_out


def read_evaluations(folder: Path, sets: Sequence[str]) -> Evaluations:
    """The evaluations of a run folder, as far as sets were measured.

    Raises:
        InputError: none was, or a file is no evaluation of a model beside its first stage.
    """
    paths = _paths(folder, sets)
    if not paths:
        raise InputError(
            f"{folder}: holds no evaluation of {' '.join(sets)}; a run folder of the reproduce "
            "scripts is needed, with evaluation/SET.json, or a folder of such"
        )
    found = {name: read_json(path) for name, path in paths.items()}
    for name, evaluation in found.items():
        if evaluation.get("baseline") not in evaluation.get("runs", {}):
            raise InputError(f"{paths[name]}: not an evaluation of ours with a baseline")
        if len(evaluation["runs"]) != 2:
            raise InputError(
                f"{paths[name]}: has {len(evaluation['runs'])} runs; the first stage's and the "
                "model's are needed"
            )
    return found


def _paths(folder: Path, sets: Sequence[str]) -> dict[str, Path]:
    paths = {name: folder / FOLDER / f"{name}.json" for name in sets}
    return {name: path for name, path in paths.items() if path.is_file()}
