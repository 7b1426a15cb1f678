"""What the steps that are left will write at least, against what is free.

Counted are what can be known beforehand: the imported documents, which take as many bytes as their
files unpacked, and the training's checkpoints. An index, runs and tokens come on top.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from scripts.reproduction.records import Records
from scripts.reproduction.steps import Step

GIB = 2**30
_PACKED = 2.5
"""Bytes of a text for each byte of its gzip: less than MS MARCO's, so that no need is made up."""


@dataclass(frozen=True)
class Disk:
    """Bytes that are needed, and those that are free, in the output folder."""

    output: Path
    needed: float
    free: int

    def describe(self) -> str:
        """A line for people."""
        some = self.needed >= GIB / 2
        needed = f", needed at least: {self.needed / GIB:,.0f} GiB" if some else ""
        return f"free where the output goes: {self.free / GIB:,.0f} GiB{needed}"

    def missing(self) -> Iterator[str]:
        """A line if it is too little."""
        if self.needed > self.free:
            yield (
                f"{self.needed / GIB:,.0f} GiB of disk for {self.output}, of which "
                f"{self.free / GIB:,.0f} GiB are free; index, runs and tokens come on top"
            )


def check_disk(
    output: Path, steps: Sequence[Step], records: Records, *, checkpoints_gib: float | None
) -> Disk:
    """What `steps` need in `output`, less what a killed call of them has written.

    Args:
        checkpoints_gib: of a training that is to be done; None if that is not known.
    """
    needed = 0.0
    for step in steps:
        if records.is_done(step):
            continue
        if step.module == "jaxrank.import_collection":
            needed += max(0.0, _unpacked(step) - _written(step.outputs[0]))
        elif step.module == "jaxrank.train":
            checkpoints = (checkpoints_gib or 0.0) * GIB
            needed += max(0.0, checkpoints - _written(step.outputs[0].parent))
    return Disk(output, needed, free_bytes(output))


def free_bytes(folder: Path) -> int:
    """Free bytes where a folder is, or is to be."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(existing).free


def _unpacked(step: Step) -> float:
    """Bytes of a step's input files without their gzip."""
    paths = [path for path in step.inputs if isinstance(path, Path)]
    return sum((_PACKED if path.suffix == ".gz" else 1) * path.stat().st_size for path in paths)


def _written(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # another process's, which is done with it
            total += path.stat().st_size if path.is_file() else 0
    return total
