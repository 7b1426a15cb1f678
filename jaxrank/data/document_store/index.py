"""Document id -> row of a store, without all ids in memory.

Two arrays on disk, memory-mapped when read: the ids' 64-bit hashes, sorted, and the row of each.
Ids that share a hash lie side by side; the reader compares the ids themselves.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt64

from jaxrank.data.document_store.manifest import StoredFile
from jaxrank.data.hashing import HashedFile, hash_text
from jaxrank.files import atomic_open

HASHES_FILE = "id-hashes.npy"
ROWS_FILE = "id-rows.npy"

MOST_DOCUMENTS = 2**32


class DocumentIndex:
    """Finds rows by id in the arrays that `write_index` wrote."""

    def __init__(self, folder: Path) -> None:
        self._hashes = _map(folder / HASHES_FILE)
        self._rows = _map(folder / ROWS_FILE)

    def candidates(self, document_id: str) -> Iterator[int]:
        """The rows whose id has this id's hash: hardly ever more than one."""
        wanted = np.uint64(hash_text(document_id))
        place = int(self._hashes.searchsorted(wanted))
        while place < len(self._hashes) and self._hashes[place] == wanted:
            yield int(self._rows[place])
            place += 1


def write_index(
    folder: Path, hashes: UInt64[np.ndarray, " documents"], *, read_id: Callable[[int], str]
) -> tuple[list[StoredFile], list[tuple[int, int]]]:
    """Sort and write the index; nothing is written where ids are repeated.

    Args:
        hashes: of the ids, by row.
        read_id: row -> id, to tell repeated ids from different ones with one hash.

    Returns:
        The files, and pairs of rows with the same id: the first of them and a later one.
    """
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    repeated: list[tuple[int, int]] = []
    first_rows: dict[str, int] = {}
    for place in np.flatnonzero(ordered[1:] == ordered[:-1]).tolist():
        if place == 0 or ordered[place - 1] != ordered[place]:
            first_rows = {read_id(int(order[place])): int(order[place])}
        row = int(order[place + 1])
        first = first_rows.setdefault(read_id(row), row)
        if first != row:
            repeated.append((first, row))
    if repeated:
        return [], repeated
    arrays = {HASHES_FILE: ordered, ROWS_FILE: order.astype(np.uint32)}
    return [_save(folder / name, array) for name, array in arrays.items()], []


def _save(path: Path, array: np.ndarray) -> StoredFile:
    with atomic_open(path, "wb") as file:
        hashed = HashedFile(file)
        np.save(hashed, array)
        return StoredFile(path.name, hashed.size, hashed.hexdigest())


def _map(path: Path) -> np.ndarray:
    """An array on disk; a plain view, since np.memmap makes each look-up slower."""
    return np.asarray(np.load(path, mmap_mode="r"))
