"""How a folder becomes a store, and how one is gone on with, whose shards are all to be there."""

import logging
from dataclasses import replace
from pathlib import Path

from jaxrank.errors import InputError
from jaxrank.ranking.document_states.disk.folder import check_folder, clean_up, locked, mend_command
from jaxrank.ranking.document_states.disk.index import Columns, DocumentIndex
from jaxrank.ranking.document_states.disk.manifest import (
    Manifest,
    ShardEntry,
    find_manifest,
    holds_states,
    read_manifest,
)
from jaxrank.ranking.document_states.disk.reading import Snapshot, read_indices
from jaxrank.ranking.document_states.disk.shards import documents_per_shard
from jaxrank.ranking.document_states.formats import StateDType
from jaxrank.ranking.document_states.identity import StateIdentity

_MOST_NAMED = 5

_log = logging.getLogger(__name__)


def empty_manifest(
    identity: StateIdentity, dtype: StateDType, computed_in: str, wanted: int | None
) -> Manifest:
    """Of a store without documents.

    Args:
        wanted: documents of a shard; None: as many as take about 256 MiB.
    """
    if wanted is None:
        wanted = documents_per_shard(identity.arrays, dtype, identity.document_budget)
    if wanted < 1:
        raise ValueError(f"documents_per_shard: got {wanted}; at least 1 is needed")
    return Manifest(identity, dtype, computed_in, wanted)


def begin_store(folder: Path, manifest: Manifest) -> None:
    """Make an empty store.

    Raises:
        InputError: there is a store, or something else, in the folder.
    """
    _check_new(folder)  # before the lock, which makes a file
    with locked(folder):
        _check_new(folder)
        manifest.write(folder)
        clean_up(folder, manifest)


def begin_or_go_on(folder: Path, wanted: Manifest, *, mend: bool) -> Snapshot:
    """Make an empty store, or clean up what a killed writer has left in one.

    Args:
        wanted: an empty store's.
        mend: whether lost shards are left out, or refused.

    Raises:
        InputError: there is something else in the folder, or a store of other states than `wanted`;
            or, unless `mend`, shards are lost.
    """
    check_folder(folder)  # before the lock, which makes a file
    with locked(folder):
        check_folder(folder)
        if not holds_states(folder):
            wanted.write(folder)
        manifest = read_manifest(folder)
        manifest.identity.check_same(wanted.identity, where=str(folder))
        found, needed = (f"{one.dtype} computed in {one.computed_in}" for one in (manifest, wanted))
        if found != needed:
            raise InputError(
                f"{folder}: holds states in {found}, not {needed}; go on with the former, or "
                "choose another folder"
            )
        snapshot = _snapshot_of_whole(folder, manifest, mend=mend)
        clean_up(folder, snapshot.manifest)
    return snapshot


def leave_out_lost(folder: Path) -> int:
    """Take lost shards out of the store, and return how many documents they had.

    Raises:
        InputError: there is no store, or it is of another format.
    """
    find_manifest(folder)  # before the lock, which makes a file
    with locked(folder):
        manifest = read_manifest(folder)
        snapshot = _snapshot_of_whole(folder, manifest, mend=True)
        clean_up(folder, snapshot.manifest)
    return manifest.num_documents - len(snapshot.index)


def _check_new(folder: Path) -> None:
    """Refuse a folder in which there is anything."""
    if holds_states(folder):
        raise InputError(
            f"{folder}: holds document states already; open them, or choose another folder"
        )
    check_folder(folder)


def _snapshot_of_whole(folder: Path, manifest: Manifest, *, mend: bool) -> Snapshot:
    """The store, as long as the index of every shard is there; needs the lock.

    Args:
        mend: whether the other shards are taken out of the manifest, with a warning. Their files
            are no part of the store then.

    Raises:
        InputError: naming the shards, unless `mend`.
    """
    indices = read_indices(folder, manifest)
    whole: list[tuple[ShardEntry, Columns]] = []
    lost: list[tuple[ShardEntry, InputError]] = []
    for entry, found in zip(manifest.shards, indices, strict=True):
        if isinstance(found, InputError):
            lost.append((entry, found))
        else:
            whole.append((entry, found))
    if lost and not mend:
        names = [entry.name for entry, _ in lost[:_MOST_NAMED]]
        more = f" and {len(lost) - len(names)} more" if len(lost) > len(names) else ""
        documents = sum(entry.documents for entry, _ in lost)
        raise InputError(
            f"{folder}: {len(lost)} of {len(indices)} shards are missing, cut or damaged "
            f"({', '.join(names)}{more}); bring them back, or take their {documents:,} documents "
            f"out ({mend_command(folder)}) and encode them again"
        )
    if lost:
        for entry, error in lost:
            _log.warning("%s; its %d documents are left out", error, entry.documents)
        manifest = replace(manifest, shards=tuple(entry for entry, _ in whole))
        manifest.write(folder)
    return Snapshot(manifest, DocumentIndex(columns for _, columns in whole))
