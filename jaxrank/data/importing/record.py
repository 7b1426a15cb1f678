"""What an import has read and written, kept so that the same one is not done twice."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jaxrank.errors import InputError
from jaxrank.files import atomic_open, file_digest, read_json

RECORD_FILE = "import.json"

_FORMAT = 3


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
    repeated: int = 0
    """Lines of the source that say again, with the same grade, what one has said."""

    def describe(self, name: str) -> str:
        """The counts in words."""
        queries = _count(self.queries, "judged query", "judged queries")
        line = f"{name}: {queries}, {_count(self.judgements, 'judgement', 'judgements')}"
        if self.repeated:
            line += f", {self.repeated:,} more say the same again"
        if self.missing:
            line += (
                f", {self.missing:,} of them of documents that are not there, first "
                f"{self.first_missing}"
            )
        return line


@dataclass(frozen=True)
class ImportReport:
    """Counts of an import."""

    source: str
    """File of the documents, or the package's name for them."""
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
        # No document has a title where the format has none, as that of MS MARCO's passages.
        has_titles = self.empty_titles < self.documents
        titles = f"{_count(self.empty_titles, 'title', 'titles')}, " if has_titles else ""
        rate = self.source_bytes / 1e6 / max(self.seconds, 1e-9)
        lines = [
            f"{_count(self.documents, 'document', 'documents')}, {_size(self.source_bytes)}; on "
            f"disk {_size(self.stored_bytes)}; {self.seconds:.1f} s ({rate:.0f} MB/s)",
            f"empty: {titles}{_count(self.empty_bodies, 'body', 'bodies')}",
            _count(self.queries, "query", "queries"),
        ]
        if self.malformed:
            lines.append(
                _count(self.malformed, "malformed line was", "malformed lines were")
                + f" passed over: {'the first is ' * (self.malformed > 1)}"
                f"{self.source}:{self.first_malformed}"
            )
        lines += [split.describe(name) for name, split in self.splits.items()]
        return [*lines, *self.notes]

    def check_missing(self) -> None:
        """Refuse judgements of documents that are not in the collection.

        Raises:
            InputError: naming the first split that has some, and the first such document.
        """
        for name, split in self.splits.items():
            if split.missing:
                raise InputError(
                    f"split {name}: {split.missing} of {split.judgements} judgements are of "
                    f"documents that are not there, first {split.first_missing}; fetch the files "
                    "again, or have them counted (missing_documents)"
                )


@dataclass(frozen=True)
class ImportRecord:
    """What an import depends on, what it wrote, and its counts."""

    inputs: dict[str, Any]
    """Layout, ids of a package's datasets, treatment of malformed lines, and of each file its size
    and time of change."""
    outputs: dict[str, str]
    """Path in the collection folder -> SHA-256."""
    report: ImportReport

    def write(self, folder: Path) -> None:
        """Write the record into a collection folder."""
        with atomic_open(folder / RECORD_FILE) as file:
            json.dump({"format": _FORMAT, **asdict(self)}, file, indent=1)
            file.write("\n")

    def is_whole(self, folder: Path) -> bool:
        """Whether all that was written is there as it was."""
        return all(self.holds(folder, name) for name in self.outputs)

    def holds(self, folder: Path, name: str) -> bool:
        """Whether one of the files that were written is there as it was."""
        path = folder / name
        return path.is_file() and file_digest(path) == self.outputs[name]


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
        raise InputError(f"{path}: 'format': {_FORMAT} is needed; delete it and import again")
    report = content["report"]
    report["splits"] = {name: SplitReport(**split) for name, split in report["splits"].items()}
    report["notes"] = tuple(report["notes"])
    return ImportRecord(content["inputs"], content["outputs"], ImportReport(**report))


def file_states(paths: Iterable[Path]) -> dict[str, list[int]]:
    """Name -> size and time of last change in nanoseconds, by which a changed file shows."""
    states = ((path.name, path.stat()) for path in paths)
    return {name: [state.st_size, state.st_mtime_ns] for name, state in states}


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _size(num_bytes: int) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if num_bytes >= unit:
            return f"{num_bytes / unit:.1f} {name}"
    return f"{num_bytes / 1e3:.1f} kB"
