"""Builds a document store from a source in one pass, in little memory, killed and resumed at will.

Whole shards stay when a build is killed. The same call then reads the source again up to their end
and compares its SHA-256, so that a store never mixes two versions of a source; its bytes are those
of a build that nothing disturbed.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa

from jaxrank.data.document_store.index import MOST_DOCUMENTS, write_index
from jaxrank.data.document_store.manifest import (
    MANIFEST_FILE,
    UNFINISHED_FILE,
    Manifest,
    Reached,
    Shard,
    StoredFile,
    check_sizes,
    read_manifest,
)
from jaxrank.data.document_store.reading import (
    LocatedDocument,
    Malformed,
    SourceChangedError,
    SourceReading,
)
from jaxrank.data.document_store.rows import DocumentRows
from jaxrank.data.document_store.shard import SCHEMA, Batch
from jaxrank.data.document_store.source import DocumentSource
from jaxrank.data.hashing import HashedFile, hash_text
from jaxrank.errors import InputError
from jaxrank.files import atomic_open, check_target, exclusive
from jaxrank.progress import track

SHARD_BYTES = 128 << 20
BATCH_BYTES = 8 << 20
_LOCK_FILE = ".lock"
_LEFTOVER = re.compile(r"\.[\w.-]+\.part|[0-9]{5,}\.arrow|id-(hashes|rows)\.npy")  # of a kill


def build_store(
    folder: str | Path,
    source: DocumentSource,
    *,
    malformed: Malformed = "refuse",
    shard_bytes: int = SHARD_BYTES,
    batch_bytes: int = BATCH_BYTES,
    progress: bool = False,
) -> Manifest:
    """Write the source's documents into `folder`, or go on with what an earlier call left there.

    A finished store is compared with the source and left as it is.

    Args:
        malformed: whether a record without a document is an error or passed over and counted.
        shard_bytes: of the source, at which a file is full; what a kill loses at most.
        batch_bytes: of the source, that are held in memory before they are written.

    Returns:
        The store's manifest.

    Raises:
        InputError: a malformed record (with its line), a repeated id (with both lines), no
            documents, a source that is another than at the earlier call, or a second builder.
    """
    folder = Path(folder)
    check_target(folder, is_folder=True)
    folder.mkdir(parents=True, exist_ok=True)

    def refuse() -> None:
        raise InputError(f"{folder}: another process is building this store; wait for its end")

    with exclusive(folder / _LOCK_FILE, when_taken=refuse):
        manifest = _find_earlier(folder, Manifest(source.kind, shard_bytes, batch_bytes), malformed)
        reading = SourceReading(
            source, start=_end_of(manifest), malformed=malformed, progress=progress
        )
        try:
            if (folder / MANIFEST_FILE).exists():
                _compare(reading, manifest)
                (folder / UNFINISHED_FILE).unlink(missing_ok=True)  # killed just before that
                return manifest
            if not (folder / UNFINISHED_FILE).exists():
                manifest.write(folder / UNFINISHED_FILE)
            for shard in _write_shards(folder, reading, manifest):
                manifest = replace(manifest, shards=(*manifest.shards, shard))
                manifest.write(folder / UNFINISHED_FILE)
        except SourceChangedError:
            how = "built from" if (folder / MANIFEST_FILE).exists() else "begun with"
            raise InputError(
                f"{source.name}: is not the source that {folder} was {how}; put that back, "
                f"or delete {folder} and run again"
            ) from None
        if not manifest.shards:
            raise InputError(f"{source.name}: no documents")
        index = _write_index(folder, manifest, source, progress=progress)
        manifest = replace(manifest, reached=reading.reached, index=index)
        manifest.write(folder / MANIFEST_FILE)
        (folder / UNFINISHED_FILE).unlink()
        return manifest


def _find_earlier(folder: Path, wanted: Manifest, malformed: Malformed) -> Manifest:
    """What an earlier call has done, if there was one, with its leftovers cleared away."""
    name = MANIFEST_FILE if (folder / MANIFEST_FILE).exists() else UNFINISHED_FILE
    known = {MANIFEST_FILE, UNFINISHED_FILE, _LOCK_FILE}
    if not (folder / name).exists():
        manifest = wanted
    else:
        manifest = read_manifest(folder / name)
        check_sizes(folder, manifest)
        known.update(file.name for file in manifest.files)
        if replace(manifest, shards=(), index=(), reached=Reached()) != wanted:
            raise InputError(
                f"{folder}: holds a store of {manifest.kind}; one of {wanted.kind} was asked for, "
                "or with shards of another size; choose another folder"
            )
        skipped = _end_of(manifest).malformed
        if skipped and malformed == "refuse":
            raise InputError(
                f"{folder}: was begun with malformed lines passed over ({skipped} so far); go on "
                f"so, or delete {folder} and run again"
            )
    for path in folder.iterdir():
        if path.name not in known:
            if not _LEFTOVER.fullmatch(path.name):
                raise InputError(f"{path}: does not belong to a store; choose another folder")
            path.unlink()
    return manifest


def _end_of(manifest: Manifest) -> Reached:
    """Where in the source the store's documents end, as far as it was built."""
    if manifest.index or not manifest.shards:
        return manifest.reached
    return manifest.shards[-1].reached


def _compare(reading: SourceReading, manifest: Manifest) -> None:
    """Refuse a source that is not the one that a finished store was built from."""
    if next(reading.documents(), None) is not None or reading.reached != manifest.reached:
        raise SourceChangedError


def _write_shards(folder: Path, reading: SourceReading, manifest: Manifest) -> Iterator[Shard]:
    """Write what is left of the source; each shard is given once it is whole and on disk."""
    documents = reading.documents()
    number = len(manifest.shards)
    while (first := next(documents, None)) is not None:
        path = folder / f"{number:05d}.arrow"
        file = _write_shard(path, chain([first], documents), manifest)
        yield Shard(file, reading.reached)
        number += 1


def _write_shard(
    path: Path, documents: Iterator[LocatedDocument], manifest: Manifest
) -> StoredFile:
    """Write documents until the shard is full or they end."""
    num_bytes = 0
    batch = Batch()
    with atomic_open(path, "wb") as file:
        hashed = HashedFile(file)
        with pa.ipc.new_file(hashed, SCHEMA) as writer:
            for located in documents:
                batch.add(located)
                num_bytes += located.num_bytes
                if batch.num_bytes >= manifest.batch_bytes:
                    writer.write_batch(batch.as_record_batch())
                    batch = Batch()
                if num_bytes >= manifest.shard_bytes:
                    break
            if len(batch):
                writer.write_batch(batch.as_record_batch())
    return StoredFile(path.name, hashed.size, hashed.hexdigest())


def _write_index(
    folder: Path, manifest: Manifest, source: DocumentSource, *, progress: bool
) -> tuple[StoredFile, ...]:
    """Write id -> row; refuse repeated ids.

    Raises:
        InputError: naming both lines of the first of them.
    """
    rows = DocumentRows(folder, manifest.shards)
    if len(rows) > MOST_DOCUMENTS:
        raise InputError(f"{source.name}: {len(rows)} documents; a store holds {MOST_DOCUMENTS}")
    ids = track(
        rows.scan("id"),
        description="indexing ids",
        unit="document",
        enabled=progress,
        total=len(rows),
    )
    hashes = np.fromiter((hash_text(document_id) for (document_id,) in ids), np.uint64, len(rows))
    files, repeated = write_index(folder, hashes, read_id=lambda row: rows.value("id", row))
    if repeated:
        first, second = min(repeated, key=lambda pair: pair[1])
        more = f" ({len(repeated) - 1} more such lines)" if len(repeated) > 1 else ""
        raise InputError(
            f"{source.name}:{rows.value('line', second)}: id {rows.value('id', second)!r} was "
            f"there before, on line {rows.value('line', first)}{more}; each id is needed once"
        )
    return tuple(files)
