"""What an import has read and written, kept so that the same one is not done twice."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jaxrank.errors import InputError
from jaxrank.files import atomic_open, read_json

RECORD_FILE = "import.json"

_FORMAT = 1


@dataclass(frozen=True)
class SplitReport:
    """One split of an import."""

    queries: int
    """That have judgements."""
    judgements: int
    missing: int
    """Judgements of documents that are not in the collection; they are kept."""
    first_missing: str | None = None
    """The first such document."""


@dataclass(frozen=True)
class ImportReport:
    """Counts of an import."""

    documents: int
    empty_titles: int
    empty_bodies: int
    malformed: int
    """Lines without a document that were passed over, as the user asked for."""
    first_malformed: int
    """Number of the first of them, from 1."""
    source_bytes: int
    """Of the documents, after decompression."""
    stored_bytes: int
    """Of the document store."""
    queries: int
    splits: Mapping[str, SplitReport]
    notes: tuple[str, ...]
    seconds: float

    def lines(self) -> list[str]:
        """The counts in words."""
        rate = self.source_bytes / 1e6 / max(self.seconds, 1e-9)
        lines = [
            f"{self.documents} documents, {self.source_bytes / 1e9:.3f} GB; on disk "
            f"{self.stored_bytes / 1e9:.3f} GB; {self.seconds:.1f} s ({rate:.0f} MB/s)",
            f"empty: {self.empty_titles} titles, {self.empty_bodies} bodies",
            f"{self.queries} queries",
        ]
        if self.malformed:
            lines.append(
                f"{self.malformed} malformed lines were passed over, the first is line "
                f"{self.first_malformed}"
            )
        for name, split in self.splits.items():
            line = f"{name}: {split.queries} judged queries, {split.judgements} judgements"
            if split.missing:
                line += (
                    f", {split.missing} of them of documents that are not there, first "
                    f"{split.first_missing}"
                )
            lines.append(line)
        return [*lines, *self.notes]


@dataclass(frozen=True)
class ImportRecord:
    """What an import depends on, what it wrote, and its counts."""

    inputs: dict[str, Any]
    """Layout, treatment of malformed lines, and of each file its size and time of change."""
    outputs: dict[str, int]
    """Path in the collection folder -> size in bytes."""
    report: ImportReport

    def write(self, folder: Path) -> None:
        """Write the record into a collection folder."""
        with atomic_open(folder / RECORD_FILE) as file:
            json.dump({"format": _FORMAT, **asdict(self)}, file, indent=1)
            file.write("\n")

    def is_whole(self, folder: Path) -> bool:
        """Whether all that was written is still there."""
        return all(file_size(folder / name) == size for name, size in self.outputs.items())


def read_record(folder: Path) -> ImportRecord | None:
    """The record of a folder; None where no import into it has come to its end.

    Raises:
        InputError: it is of another format.
    """
    path = folder / RECORD_FILE
    if not path.exists():
        return None
    content = read_json(path)
    if content.get("format") != _FORMAT:
        raise InputError(f"{path}: 'format': {_FORMAT} is needed; import into a new folder")
    report = content["report"]
    report["splits"] = {name: SplitReport(**split) for name, split in report["splits"].items()}
    report["notes"] = tuple(report["notes"])
    return ImportRecord(content["inputs"], content["outputs"], ImportReport(**report))


def file_states(paths: Iterable[Path]) -> dict[str, list[int]]:
    """Name -> size and time of last change in nanoseconds, by which a changed file shows."""
    states = ((path.name, path.stat()) for path in paths)
    return {name: [state.st_size, state.st_mtime_ns] for name, state in states}


def file_size(path: Path) -> int | None:
    """Bytes of a file; None where there is none."""
    return path.stat().st_size if path.is_file() else None
