"""How a store on disk is changed: shards are written whole, and then the manifest that names them.

All of it needs the folder's lock. What fails on the way leaves the store as it was.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from jaxrank.errors import InputError
from jaxrank.ranking.document_states.disk.folder import shard_name, telling_of_full_disk
from jaxrank.ranking.document_states.disk.manifest import ShardEntry
from jaxrank.ranking.document_states.disk.reading import Snapshot
from jaxrank.ranking.document_states.disk.shards import MappedShard, write_shard
from jaxrank.ranking.document_states.formats import StoredArray, stored_arrays
from jaxrank.ranking.document_states.records import Record, check_record


def append_shard(folder: Path, snapshot: Snapshot, records: Sequence[Record]) -> Snapshot:
    """Add one shard to a store, and return the store with it.

    Raises:
        InputError: a document that is there already, one longer than the budget, or a state that
            is not finite; or the disk is full.
        ValueError: a record of other arrays than the store has.
    """
    manifest, index = snapshot.manifest, snapshot.index
    stored = stored_arrays(manifest.identity.arrays, manifest.dtype)
    for record in records:
        check_record(record, stored, manifest.identity.document_budget, manifest.computed_in)
    seen: set[str] = set()
    rows = index.find([record.document_id for record in records])
    for record, row in zip(records, rows.tolist(), strict=True):
        if row >= 0 or record.document_id in seen:
            raise InputError(
                f"{folder}: document {record.document_id!r} is there already; each is needed "
                "once, and another state of it only when this one is deleted"
            )
        seen.add(record.document_id)
    with telling_of_full_disk(folder):
        path = folder / shard_name(manifest.next_shard)
        entry, columns = write_shard(path, records, stored)
        manifest = replace(
            manifest, next_shard=manifest.next_shard + 1, shards=(*manifest.shards, entry)
        )
        manifest.write(folder)
    return Snapshot(manifest, index.extended(columns))


def remove_rows(folder: Path, snapshot: Snapshot, rows: np.ndarray) -> None:
    """Write the shards that hold these rows anew without them, and a manifest with the new ones.

    Args:
        rows: of documents, each once.

    Raises:
        InputError: a shard that is damaged in its index, or the disk is full.
    """
    manifest = snapshot.manifest
    stored = stored_arrays(manifest.identity.arrays, manifest.dtype)
    shards: list[ShardEntry] = []
    next_shard = manifest.next_shard
    with telling_of_full_disk(folder):
        for number, entry in enumerate(manifest.shards):
            first, end = snapshot.index.starts[number : number + 2]
            gone = set((rows[(rows >= first) & (rows < end)] - first).tolist())
            if not gone:
                shards.append(entry)
            elif len(gone) < entry.documents:
                path = folder / shard_name(next_shard)
                shards.append(_write_without(path, entry, stored, gone))
                next_shard += 1
        replace(manifest, next_shard=next_shard, shards=tuple(shards)).write(folder)


def _write_without(
    path: Path, entry: ShardEntry, stored: Sequence[StoredArray], gone: Collection[int]
) -> ShardEntry:
    """Write a shard's documents but those at some places as a new shard."""
    shard = MappedShard(path.parent, entry, stored)
    places = [place for place in range(len(shard)) if place not in gone]
    for place in places:
        shard.expect(place)
    checksums = [shard.checksum(place) for place in places]
    return write_shard(path, list(map(shard.record, places)), stored, checksums=checksums)[0]
