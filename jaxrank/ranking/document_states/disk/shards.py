"""Files of documents' states, read where they lie on disk; `shard_layout` has what lies where."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from itertools import accumulate
from math import prod
from mmap import ACCESS_READ, MADV_RANDOM, MADV_WILLNEED, PAGESIZE, mmap
from pathlib import Path
from typing import IO
from zlib import crc32

import numpy as np

from jaxrank.data.hashing import HashedFile
from jaxrank.errors import InputError
from jaxrank.files import atomic_open
from jaxrank.models.states import StateArray
from jaxrank.ranking.document_states.disk.folder import mend_command
from jaxrank.ranking.document_states.disk.index import Columns
from jaxrank.ranking.document_states.disk.manifest import ShardEntry
from jaxrank.ranking.document_states.disk.shard_layout import (
    columns_in,
    header_bytes,
    header_in,
    in_file_order,
    index_bytes,
    state_tensors,
)
from jaxrank.ranking.document_states.formats import StateDType, StoredArray, stored_bytes
from jaxrank.ranking.document_states.records import Record, name_of_not_finite

SHARD_BYTES = 256 << 20

_MOST_DOCUMENTS = 1024  # of small states: what a kill of the writer loses is bounded
_ADVISED_BYTES = 512 << 10  # the system reads no more at one piece of advice


def documents_per_shard(specs: Sequence[StateArray], dtype: StateDType, budget: int) -> int:
    """How many documents of at most `budget` tokens a shard of about 256 MiB holds."""
    fitting = SHARD_BYTES // max(stored_bytes(specs, dtype, budget), 1)
    return max(1, min(fitting, _MOST_DOCUMENTS))


def write_shard(
    path: Path,
    records: Sequence[Record],
    stored: Sequence[StoredArray],
    *,
    checksums: Sequence[int] | None = None,
) -> tuple[ShardEntry, Columns]:
    """Write a file that is there once it is whole.

    Args:
        checksums: of records that come from another shard, so that what was damaged there does not
            pass for sound here.

    Returns:
        The manifest's entry, and the index that the store keeps in memory.
    """
    arrays = in_file_order(stored)
    if checksums is None:
        checksums = [_checksum(record, arrays) for record in records]
    columns = Columns.of(records, checksums)
    index = index_bytes(columns, arrays)
    with atomic_open(path, "wb") as file:
        hashed = HashedFile(file)
        hashed.write(index)
        for array in arrays:
            for record in records:
                hashed.write(record.arrays[array.name].tobytes())
    entry = ShardEntry(
        name=path.name,
        documents=len(records),
        bytes=hashed.size,
        sha256=hashed.hexdigest(),
        index_bytes=len(index),
        index_sha256=sha256(index).hexdigest(),
    )
    return entry, columns


def read_index(folder: Path, entry: ShardEntry) -> Columns:
    """A shard's ids, lengths and checksums; no state is read.

    Raises:
        InputError: the file is not there, has another size, or its index is damaged.
    """
    path = folder / entry.name
    with _open(path, entry) as file:
        return _columns(file.read(entry.index_bytes), entry, path)


class MappedShard:
    """A shard whose states are read where they lie on disk.

    Raises:
        InputError: the file is not there, has another size, or its index is damaged.
    """

    def __init__(self, folder: Path, entry: ShardEntry, stored: Sequence[StoredArray]) -> None:
        self.path = folder / entry.name
        with _open(self.path, entry) as file:
            self._mapped = mmap(file.fileno(), 0, access=ACCESS_READ)
        # Else the system reads around every page that is touched; `expect` names what is to come.
        self._mapped.madvise(MADV_RANDOM)
        index = self._mapped[: entry.index_bytes]
        self.columns = _columns(index, entry, self.path)
        self._arrays = in_file_order(stored)
        lengths = self.columns.lengths
        tensors = state_tensors(self._arrays, lengths)
        if header_bytes(tensors, self.columns) != header_in(index):
            raise InputError(f"{self.path}: holds other arrays than its store; {_mend(folder)}")
        starts = accumulate((tensor.nbytes for tensor in tensors), initial=entry.index_bytes)
        self._starts = dict(zip((array.name for array in self._arrays), starts, strict=False))
        self._tokens_before = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])

    def __len__(self) -> int:
        return len(self.columns.lengths)

    def document_id(self, place: int) -> str:
        """The id of the document at a place, from 0."""
        return self.columns.document_id(place)

    def expect(self, place: int) -> None:
        """Have the system read a document's pages from disk in the background."""
        for start, num_bytes in self._ranges(place):
            first, end = start - start % PAGESIZE, start + num_bytes
            for piece in range(first, end, _ADVISED_BYTES):
                self._mapped.madvise(MADV_WILLNEED, piece, min(_ADVISED_BYTES, end - piece))

    def record(self, place: int) -> Record:
        """A document's record, as views of the file; nothing is checked."""
        length = int(self.columns.lengths[place])
        arrays = {
            array.name: np.frombuffer(
                self._mapped, array.dtype, prod(array.shape_at(length)), start
            ).reshape(array.shape_at(length))
            for array, (start, _) in zip(self._arrays, self._ranges(place), strict=True)
        }
        text_hash = int(self.columns.text_hashes[place])
        return Record(self.document_id(place), length, arrays, text_hash)

    def checked_record(self, place: int, *, verify: bool = True) -> Record:
        """A document's record, as views of the file.

        Args:
            verify: whether to compare it with its checksum.

        Raises:
            InputError: it is damaged, or not finite.
        """
        record = self.record(place)
        fault = self.fault(record, place, verify=verify)
        if fault is not None:
            raise InputError(
                f"{self.path}: document {record.document_id!r}: {fault}; take it out "
                f"({mend_command(self.path.parent)}) and encode it again"
            )
        return record

    def fault(self, record: Record, place: int, *, verify: bool = True) -> str | None:
        """What is wrong with the record at a place."""
        if verify and _checksum(record, self._arrays) != int(self.columns.checksums[place]):
            return "its state is damaged: it does not have its checksum"
        bad = name_of_not_finite(record)
        return None if bad is None else f"{bad} has numbers that are not finite"

    def checksum(self, place: int) -> int:
        """The checksum of a document as it was when it was written."""
        return int(self.columns.checksums[place])

    def _ranges(self, place: int) -> Iterator[tuple[int, int]]:
        """Of each array of a document: offset and number of its bytes."""
        length = int(self.columns.lengths[place])
        for array in self._arrays:
            each = array.bytes_at(1)
            before = int(self._tokens_before[place]) if array.per_token else place
            yield self._starts[array.name] + each * before, array.bytes_at(length)


def _mend(folder: Path) -> str:
    return (
        f"bring the file back, or take its documents out ({mend_command(folder)}) and encode them "
        "again"
    )


@contextmanager
def _open(path: Path, entry: ShardEntry) -> Iterator[IO[bytes]]:
    """The file, if it has the size that it was written with."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != entry.bytes:
                raise InputError(
                    f"{path}: {size} bytes; {entry.bytes} were written; {_mend(path.parent)}"
                )
            yield file
    except FileNotFoundError:
        raise InputError(f"{path}: not there; {_mend(path.parent)}") from None


def _columns(index: bytes, entry: ShardEntry, path: Path) -> Columns:
    """The columns of an index that is as it was written."""
    if sha256(index).hexdigest() != entry.index_sha256:
        raise InputError(f"{path}: damaged in its index of documents; {_mend(path.parent)}")
    return columns_in(index)


def _checksum(record: Record, arrays: Sequence[StoredArray]) -> int:
    """CRC-32 of a document's arrays; its id and length stand with it in the index."""
    checksum = 0
    for array in arrays:
        values = np.ascontiguousarray(record.arrays[array.name]).reshape(-1).view(np.uint8)
        checksum = crc32(values.data, checksum)
    return checksum
