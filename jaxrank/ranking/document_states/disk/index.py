"""Document id -> place in a store, for millions of them: a few arrays and no Python object each."""

from collections.abc import Iterable, Sequence
from copy import copy
from typing import NamedTuple, overload

import numpy as np

from jaxrank.data.hashing import hash_text
from jaxrank.ranking.document_states.records import Record

_ALIGNMENT = 64
_NOWHERE = -1


class Columns(NamedTuple):
    """What is known of documents besides their states; row i is document i."""

    hashes: np.ndarray
    """64 bits of each id."""
    text_hashes: np.ndarray
    """64 bits of each text that was read; 0 where it is not known."""
    id_ends: np.ndarray
    """Where each id ends in `ids`."""
    lengths: np.ndarray
    """Tokens that were read."""
    checksums: np.ndarray
    """CRC-32 of each document's state."""
    ids: np.ndarray
    """UTF-8, one behind the other, then zeros."""

    @classmethod
    def dtypes(cls) -> dict[str, np.dtype]:
        """Of each column; little-endian, as on disk."""
        names = ("<u8", "<u8", "<i8", "<i4", "<u4", "u1")
        return dict(zip(cls._fields, map(np.dtype, names), strict=True))

    @classmethod
    def of(cls, records: Sequence[Record], checksums: Sequence[int]) -> "Columns":
        """The columns of records."""
        ids = [record.document_id.encode() for record in records]
        values = (
            [hash_text(record.document_id) for record in records],
            [record.text_hash for record in records],
            np.cumsum([len(one) for one in ids], dtype=np.int64),
            [record.length for record in records],
            checksums,
            np.frombuffer(b"".join(ids), np.uint8),
        )
        columns = cls(
            *(
                np.array(value, dtype)
                for value, dtype in zip(values, cls.dtypes().values(), strict=True)
            )
        )
        # What follows in the file lies at a multiple of the alignment, whatever comes before.
        size = sum(column.nbytes for column in columns)
        return columns._replace(ids=np.pad(columns.ids, (0, -size % _ALIGNMENT)))

    def document_id(self, row: int) -> str:
        """The id of a document."""
        return self.id_bytes(row).decode()

    def id_bytes(self, row: int) -> bytes:
        """The id of a document, in UTF-8."""
        start = self.id_ends[row - 1] if row else 0
        return self.ids[start : self.id_ends[row]].tobytes()


class DocumentIndex:
    """Finds documents of several shards by id.

    Attributes:
        columns: of all documents, in the order of the shards.
        starts: the first row of each shard, and the number of all documents.
    """

    def __init__(self, shards: Iterable[Columns]) -> None:
        shards = list(shards)
        counts = [len(shard.lengths) for shard in shards]
        self.starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self.columns = _joined(shards)
        self._order = np.argsort(self.columns.hashes, kind="stable")
        self._hashes = self.columns.hashes[self._order]

    def __len__(self) -> int:
        return len(self._hashes)

    def extended(self, shard: Columns) -> "DocumentIndex":
        """An index of these documents and those of one more shard."""
        index = copy(self)
        index.columns = _joined([self.columns, shard])
        index.starts = np.append(self.starts, len(index.columns.lengths))
        # Merged, since sorting millions anew takes several times as long as moving them.
        order = np.argsort(shard.hashes, kind="stable")
        places = np.searchsorted(self._hashes, shard.hashes[order], side="right")
        index._hashes = np.insert(self._hashes, places, shard.hashes[order])
        index._order = np.insert(self._order, places, len(self) + order)
        return index

    def find(self, document_ids: Sequence[str]) -> np.ndarray:
        """The row of each document, -1 where there is none."""
        rows = np.full(len(document_ids), _NOWHERE, np.int64)
        hashes = np.fromiter(map(_hash_id, document_ids), np.uint64, len(document_ids))
        places = np.searchsorted(self._hashes, hashes)
        inside = np.flatnonzero(places < len(self))
        for position in inside[self._hashes[places[inside]] == hashes[inside]].tolist():
            wanted = document_ids[position].encode(errors="surrogatepass")
            place = int(places[position])
            # Different ids hardly ever have the same hash; those lie side by side.
            while place < len(self) and self._hashes[place] == hashes[position]:
                row = int(self._order[place])
                if self.columns.id_bytes(row) == wanted:
                    rows[position] = row
                    break
                place += 1
        return rows

    def repeated(self) -> list[tuple[int, int]]:
        """Pairs of rows with the same id."""
        same = np.flatnonzero(self._hashes[1:] == self._hashes[:-1]).tolist()
        pairs = [(int(self._order[place]), int(self._order[place + 1])) for place in same]
        return [
            (first, second)
            for first, second in pairs
            if self.columns.id_bytes(first) == self.columns.id_bytes(second)
        ]

    def shard_of(self, row: int) -> int:
        """The number of the shard that a document is in, from 0."""
        return int(np.searchsorted(self.starts, row, side="right")) - 1


class StoredIds(Sequence[str]):
    """The ids of an index, each made when it is asked for."""

    def __init__(self, index: DocumentIndex) -> None:
        self._index = index

    def __len__(self) -> int:
        return len(self._index)

    @overload
    def __getitem__(self, row: int) -> str: ...

    @overload
    def __getitem__(self, row: slice) -> list[str]: ...

    def __getitem__(self, row: int | slice) -> str | list[str]:
        rows = range(len(self))[row]  # understands negative ones, and refuses what is beyond
        if isinstance(rows, range):
            return [self._index.columns.document_id(one) for one in rows]
        return self._index.columns.document_id(rows)


def _hash_id(document_id: str) -> int:
    """Of an id that is no Unicode text, which no store has, any number will do."""
    try:
        return hash_text(document_id)
    except UnicodeEncodeError:
        return 0


def _joined(shards: Sequence[Columns]) -> Columns:
    """Columns one behind the other, without the zeros behind each shard's ids."""
    if not shards:
        return Columns(*(np.empty(0, dtype) for dtype in Columns.dtypes().values()))
    used = [int(shard.id_ends[-1]) if len(shard.id_ends) else 0 for shard in shards]
    before = np.concatenate([[0], np.cumsum(used)])
    return Columns(
        hashes=np.concatenate([shard.hashes for shard in shards]),
        text_hashes=np.concatenate([shard.text_hashes for shard in shards]),
        id_ends=np.concatenate(
            [shard.id_ends + start for shard, start in zip(shards, before[:-1], strict=True)]
        ),
        lengths=np.concatenate([shard.lengths for shard in shards]),
        checksums=np.concatenate([shard.checksums for shard in shards]),
        ids=np.concatenate([shard.ids[:end] for shard, end in zip(shards, used, strict=True)]),
    )
