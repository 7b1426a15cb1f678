"""Reads every byte of a store, and lists all that is not as it was written."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jaxrank.errors import InputError
from jaxrank.files import file_digest
from jaxrank.progress import track
from jaxrank.ranking.document_states.disk.folder import mend_command
from jaxrank.ranking.document_states.disk.index import DocumentIndex
from jaxrank.ranking.document_states.disk.manifest import (
    COPY_FILE,
    MANIFEST_FILE,
    Manifest,
    ShardEntry,
    read_manifest,
    read_manifest_file,
)
from jaxrank.ranking.document_states.disk.shards import MappedShard, read_index
from jaxrank.ranking.document_states.formats import stored_arrays
from jaxrank.ranking.document_states.threads import in_threads


class Fault(NamedTuple):
    """Something that is not as it was written."""

    file: Path
    document_id: str | None
    """None where it is the file itself, and with it all of its documents."""
    what: str

    def __str__(self) -> str:
        document = "" if self.document_id is None else f"document {self.document_id!r}: "
        return f"{self.file}: {document}{self.what}"


def find_faults(folder: Path, *, progress: bool = False) -> list[Fault]:
    """All faults of a store, in the order of its files; none of a sound one.

    Args:
        progress: whether to draw a bar.
    """
    faults = list(_faults_of_manifest(folder))
    try:
        manifest = read_manifest(folder)
    except InputError:  # is a fault already
        return faults
    shards = track(manifest.shards, description="verifying", unit="shard", enabled=progress)
    for entry in shards:
        faults.extend(_faults_of_shard(folder, entry, manifest))
    return [*faults, *_repeated(folder, manifest)]


def _faults_of_manifest(folder: Path) -> Iterator[Fault]:
    """Of the first, and of its copy, which may be missing or old after a writer was killed."""
    faults: list[Fault] = []
    for path in (folder / MANIFEST_FILE, folder / COPY_FILE):
        try:
            if path.name == MANIFEST_FILE or path.exists():
                read_manifest_file(path)
        except InputError as error:
            faults.append(_as_fault(error, path))
    for fault in faults:
        other = folder / (COPY_FILE if fault.file.name == MANIFEST_FILE else MANIFEST_FILE)
        if len(faults) == 1 and other.exists():
            what = f"damaged or lost; {mend_command(folder)} writes it anew, from {other.name}"
            fault = fault._replace(what=what)
        yield fault


def _faults_of_shard(folder: Path, entry: ShardEntry, manifest: Manifest) -> list[Fault]:
    path = folder / entry.name
    try:
        shard = MappedShard(folder, entry, stored_arrays(manifest.identity.arrays, manifest.dtype))
    except InputError as error:
        return [_as_fault(error, path)]
    # Read from front to back, which brings the file into memory for the documents' checksums.
    is_same = file_digest(path) == entry.sha256

    def fault_of(place: int) -> Fault | None:
        record = shard.record(place)
        what = shard.fault(record, place)
        return None if what is None else Fault(path, record.document_id, what)

    found = in_threads(fault_of, range(len(shard)), num_bytes=entry.bytes)
    faults = [fault for fault in found if fault is not None]
    faults.extend(_unlike_manifest(shard, entry, manifest))
    if not is_same and not faults:
        what = "does not have its SHA-256; delete this file, and take its documents out"
        faults.append(Fault(path, None, f"{what} ({mend_command(folder)})"))
    return faults


def _unlike_manifest(shard: MappedShard, entry: ShardEntry, manifest: Manifest) -> Iterator[Fault]:
    """What a shard says about itself, and the manifest otherwise."""
    if len(shard) != entry.documents:
        what = f"{len(shard)} documents; its manifest has {entry.documents}"
        yield Fault(shard.path, None, what)
    budget = manifest.identity.document_budget
    for place, length in enumerate(shard.columns.lengths.tolist()):
        if not 0 <= length <= budget:
            what = f"{length} tokens; its store is made for {budget} at most"
            yield Fault(shard.path, shard.document_id(place), what)


def _repeated(folder: Path, manifest: Manifest) -> Iterator[Fault]:
    """Documents that are there more than once."""
    readable = []
    for entry in manifest.shards:
        try:
            readable.append((entry, read_index(folder, entry)))
        except InputError:  # is a fault already
            continue
    index = DocumentIndex(columns for _, columns in readable)
    for first, second in index.repeated():
        path, other = (folder / readable[index.shard_of(row)][0].name for row in (second, first))
        document_id = index.columns.document_id(second)
        yield Fault(path, document_id, f"is in {other.name} too")


def _as_fault(error: InputError, path: Path) -> Fault:
    return Fault(path, None, str(error).removeprefix(f"{path}: "))
