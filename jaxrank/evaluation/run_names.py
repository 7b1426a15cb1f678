"""Short names for run files and folders, by which tables call them."""

from collections.abc import Sequence
from pathlib import Path

from jaxrank.errors import InputError


def name_runs(paths: Sequence[Path], baseline: Path | None = None) -> dict[str, Path]:
    """Short names for run files, the baseline's first: the file's name where that tells them apart.

    Raises:
        InputError: no path, one path twice, or a baseline that is not among them.
    """
    if not paths:
        raise InputError("runs: none given; name at least one")
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None:
        raise InputError(f"runs: {twice} is given twice; name each once")
    if baseline is not None and baseline not in paths:
        raise InputError(
            f"baseline: {baseline} is not among the runs; name one of {', '.join(map(str, paths))}"
        )
    ordered = sorted(paths, key=lambda path: path != (baseline or paths[0]))
    short = [path.name.removesuffix(".gz").removesuffix(".run") for path in ordered]
    names = short if len(set(short)) == len(short) else [str(path) for path in ordered]
    return dict(zip(names, ordered, strict=True))
