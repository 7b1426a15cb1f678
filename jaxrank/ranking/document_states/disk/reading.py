"""How a store on disk is read: what it holds at one time, and its shards, of which few are open."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from jaxrank.errors import InputError
from jaxrank.ranking.document_states.disk.index import Columns, DocumentIndex
from jaxrank.ranking.document_states.disk.manifest import Manifest, ShardEntry, read_manifest
from jaxrank.ranking.document_states.disk.shards import MappedShard, read_index
from jaxrank.ranking.document_states.formats import StoredArray, stored_arrays
from jaxrank.ranking.document_states.records import Record
from jaxrank.ranking.document_states.threads import in_threads

_MOST_OPEN_SHARDS = 256  # a mapping takes a file descriptor, of which processes often have 1,024


@dataclass(frozen=True)
class Snapshot:
    """A store at one time."""

    manifest: Manifest
    index: DocumentIndex


def read_snapshot(folder: Path) -> Snapshot:
    """The store in a folder as it is now.

    Raises:
        InputError: there is none, or its manifest or a shard's index is damaged.
    """
    while True:
        manifest = read_manifest(folder)
        shards: list[Columns] = []
        for columns in read_indices(folder, manifest):
            if isinstance(columns, InputError):
                # A writer may have deleted a shard since its manifest was read.
                if read_manifest(folder) == manifest:
                    raise columns
                break
            shards.append(columns)
        else:
            return Snapshot(manifest, DocumentIndex(shards))


def read_indices(folder: Path, manifest: Manifest) -> list[Columns | InputError]:
    """The index of every shard, or what is wrong with it; no state is read."""

    def read(entry: ShardEntry) -> Columns | InputError:
        try:
            return read_index(folder, entry)
        except InputError as error:
            return error

    num_bytes = sum(shard.index_bytes for shard in manifest.shards)
    return in_threads(read, manifest.shards, num_bytes=num_bytes)


class ShardReader:
    """Reads states where they lie on disk; safe from several threads.

    Args:
        folder: of the store.
        manifest: of the store at any time; what it was made for does not change.
        verify: whether every state is compared with its checksum.
    """

    def __init__(self, folder: Path, manifest: Manifest, *, verify: bool) -> None:
        stored = stored_arrays(manifest.identity.arrays, manifest.dtype)
        self._mapped = lru_cache(_MOST_OPEN_SHARDS)(partial(_map, folder, stored))
        self._verify = verify

    def visit(
        self, snapshot: Snapshot, rows: np.ndarray, use: Callable[[int, Record], None]
    ) -> None:
        """Call `use(position, record)` for the document of each row, from several threads.

        Raises:
            InputError: a state is damaged or not finite, or its shard is no longer there.
        """
        starts = snapshot.index.starts
        numbers = np.searchsorted(starts, rows, side="right") - 1
        bytes_of_one = snapshot.manifest.nbytes // max(len(snapshot.index), 1)
        for group in _of_few_shards(np.argsort(rows).tolist(), numbers.tolist()):
            found: list[tuple[int, MappedShard, int]] = []
            for position in group:
                shard = self._mapped(snapshot.manifest.shards[numbers[position]])
                place = int(rows[position] - starts[numbers[position]])
                shard.expect(place)
                found.append((position, shard, place))

            def read(one: tuple[int, MappedShard, int]) -> None:
                position, shard, place = one
                use(position, shard.checked_record(place, verify=self._verify))

            in_threads(read, found, num_bytes=len(found) * bytes_of_one)

    def close(self) -> None:
        """Let go of all shards, which take space on disk for as long as they are mapped."""
        self._mapped.cache_clear()


def _map(folder: Path, stored: Sequence[StoredArray], entry: ShardEntry) -> MappedShard:
    """A shard of the store as it was when it was opened."""
    try:
        return MappedShard(folder, entry, stored)
    except InputError:
        if entry not in read_manifest(folder).shards:
            raise InputError(
                f"{folder}: documents were deleted since it was opened; open it again"
            ) from None
        raise


def _of_few_shards(order: Sequence[int], numbers: Sequence[int]) -> Iterator[list[int]]:
    """Cut positions, in the order of their shards, where more files would be open than may be."""
    group: list[int] = []
    shards: set[int] = set()
    for position in order:
        if numbers[position] not in shards and len(shards) == _MOST_OPEN_SHARDS:
            yield group
            group, shards = [], set()
        group.append(position)
        shards.add(numbers[position])
    if group:
        yield group
