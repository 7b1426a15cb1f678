"""What a document store's folder says about itself: its files with their SHA-256, and counts.

The same record, under another name, tells how far a build has come.
"""

import json
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from jaxrank.errors import InputError
from jaxrank.files import atomic_open, file_digest, read_json

MANIFEST_FILE = "manifest.json"
UNFINISHED_FILE = "unfinished.json"
FORMAT = 1


@dataclass(frozen=True)
class Reached:
    """How far into its source a build has come, and what it has met on the way."""

    records: int = 0
    num_bytes: int = 0
    sha256: str = sha256().hexdigest()
    """Of all bytes of the source up to here, after decompression."""
    documents: int = 0
    empty_titles: int = 0
    empty_bodies: int = 0
    malformed: int = 0
    """Records that hold no document and were passed over, as the builder was told to."""
    first_malformed: int = 0
    """Number of the first such record, from 1; 0 where there is none."""


@dataclass(frozen=True)
class StoredFile:
    """One file of the store."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Shard:
    """A file of documents, and the place in the source at which it ends."""

    file: StoredFile
    reached: Reached


@dataclass(frozen=True)
class Manifest:
    """All files of a store. Sizes are of the source's bytes, at which a shard and a batch end."""

    kind: str
    """Format of the source's records."""
    shard_bytes: int
    batch_bytes: int
    shards: tuple[Shard, ...] = ()
    index: tuple[StoredFile, ...] = ()
    reached: Reached = Reached()

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """All files but the manifest itself."""
        return (*(shard.file for shard in self.shards), *self.index)

    def write(self, path: Path) -> None:
        """Write it, with a SHA-256 of its own content."""
        content = {"format": FORMAT, **asdict(self)}
        with atomic_open(path) as file:
            json.dump({"sha256": _digest(content), **content}, file, indent=1)
            file.write("\n")


def read_manifest(path: Path) -> Manifest:
    """Read a manifest, or how far a build has come.

    Raises:
        InputError: naming the file: it is not there, of another format, or damaged.
    """
    content: dict[str, Any] = read_json(path)
    digest = content.pop("sha256", None)
    found = content.pop("format", None)
    if found != FORMAT:
        raise InputError(
            f"{path}: format {found!r} of a document store; this version of jaxrank reads "
            f"{FORMAT}; {mend_of(path.parent)}"
        )
    # As written: a list's order and a number's spelling count, the layout of the file does not.
    if digest != _digest({"format": FORMAT, **content}):
        raise InputError(f"{path}: damaged; {mend_of(path.parent)}")
    shards = [
        Shard(StoredFile(**shard["file"]), Reached(**shard["reached"]))
        for shard in content.pop("shards")
    ]
    index = [StoredFile(**file) for file in content.pop("index")]
    reached = Reached(**content.pop("reached"))
    return Manifest(**content, shards=tuple(shards), index=tuple(index), reached=reached)


def check_sizes(folder: Path, manifest: Manifest) -> None:
    """Refuse a store with missing or cut files; what is in them is not read.

    Raises:
        InputError: naming the file.
    """
    for file in manifest.files:
        path = folder / file.name
        size = path.stat().st_size if path.is_file() else None
        if size != file.size:
            found = "not there" if size is None else f"{size} bytes"
            raise InputError(f"{path}: {found}; {file.size} bytes are needed; {mend_of(folder)}")


def check_digests(folder: Path, manifest: Manifest) -> None:
    """Read every file of a store and refuse what is not, to the bit, as it was written.

    Raises:
        InputError: naming the files.
    """
    damaged = [
        file.name for file in manifest.files if file_digest(folder / file.name) != file.sha256
    ]
    if damaged:
        raise InputError(f"{folder}: damaged: {', '.join(damaged)}; {mend_of(folder)}")


def mend_of(folder: Path) -> str:
    """What to do about a store that has lost something; the rest of the collection may stay."""
    return f"delete {folder} and run the same import again"


def _digest(content: dict[str, Any]) -> str:
    return sha256(json.dumps(content).encode()).hexdigest()
