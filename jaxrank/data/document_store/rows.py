"""Rows of a document store by number, from Arrow files that are memory-mapped."""

from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from mmap import ACCESS_READ, MADV_RANDOM, mmap
from pathlib import Path
from typing import Any

import pyarrow as pa

from jaxrank.data.document_store.manifest import Shard

_MOST_OPEN_SHARDS = 256  # of 128 MiB: all of MS MARCO's, and far from a process's limit of mappings


class DocumentRows:
    """The rows of all shards, numbered through. Reading is safe from several threads."""

    def __init__(self, folder: Path, shards: tuple[Shard, ...]) -> None:
        self._paths = [folder / shard.file.name for shard in shards]
        self._ends = [shard.reached.documents for shard in shards]
        self._starts = [0, *self._ends[:-1]]
        self._shard = lru_cache(_MOST_OPEN_SHARDS)(self._open_for_random_reads)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def value(self, column: str, row: int) -> Any:
        """What a column holds in a row; no other column is read."""
        number = bisect_right(self._starts, row) - 1
        return self._shard(number).column(column)[row - self._starts[number]].as_py()

    def scan(self, *columns: str) -> Iterator[tuple[Any, ...]]:
        """All rows in their order; at most one shard is mapped for it at a time."""
        for number in range(len(self._paths)):
            for batch in self._open(number).select(columns).to_batches():
                yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)

    def _open(self, number: int) -> pa.Table:
        with pa.memory_map(str(self._paths[number])) as file:
            return pa.ipc.open_file(file).read_all()

    def _open_for_random_reads(self, number: int) -> pa.Table:
        """A shard whose pages are read from the disk one by one, as they are used.

        Arrow's own mapping asks the system for the whole file when it is opened: a single document
        would bring 128 MiB from the disk, and one of each shard all 22 GB of MS MARCO.
        """
        with open(self._paths[number], "rb") as file:
            mapped = mmap(file.fileno(), 0, access=ACCESS_READ)
        mapped.madvise(MADV_RANDOM)
        return pa.ipc.open_file(pa.BufferReader(mapped)).read_all()
