"""Tokenised texts of a token store's shards as one table, read by name from the disk."""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int, Int64, UInt64

from jaxrank.data.hashing import hash_text
from jaxrank.data.tokens.shard import TokenShard
from jaxrank.data.tokens.table import TokenTable

_NOT_THERE = -1


class StoredTokens(TokenTable):
    """The texts of all shards, numbered through.

    Memory holds 25 bytes a text (hash, row, length, whether it is blank); ids and names stay on
    disk.
    """

    def __init__(self, shards: Sequence[TokenShard]) -> None:
        self._shards = shards
        sizes = [len(shard.names) for shard in shards]
        self._starts: Int64[np.ndarray, " shards"] = np.cumsum([0, *sizes], dtype=np.int64)[:-1]
        self.lengths = _join([shard.lengths for shard in shards], np.int64)
        self.is_empty = _join([shard.is_empty for shard in shards], np.bool_)
        hashes = _join([shard.hashes for shard in shards], np.uint64)
        self._rows: Int64[np.ndarray, " texts"] = np.argsort(hashes, kind="stable")
        self._hashes: UInt64[np.ndarray, " texts"] = hashes[self._rows]

    @property
    def num_tokens(self) -> int:
        """Tokens of all texts, after cutting at `max_length`."""
        return sum(len(shard.ids) for shard in self._shards)

    @property
    def num_bytes(self) -> int:
        """Disk that the ids take."""
        return sum(shard.ids.nbytes for shard in self._shards)

    def find(self, names: Iterable[str]) -> Int64[np.ndarray, " n"]:
        """The numbers of texts, in the order of their names; KeyError for one not there."""
        names = list(names)
        rows = self.find_known(names)
        if len(unknown := np.flatnonzero(rows == _NOT_THERE)):
            raise KeyError(names[unknown[0]])
        return rows

    def missing(self, names: Sequence[str]) -> list[str]:
        """Those of the names that are not there, in their order."""
        places = np.flatnonzero(self.find_known(names) == _NOT_THERE)
        return [names[place] for place in places.tolist()]

    def find_known(self, names: Sequence[str]) -> Int64[np.ndarray, " n"]:
        """The numbers of texts; -1 for one that is not there."""
        hashes = np.fromiter(map(hash_text, names), np.uint64, len(names))
        found = np.full(len(names), _NOT_THERE, np.int64)
        first = np.searchsorted(self._hashes, hashes)
        # Different names with one hash lie side by side, which two will hardly ever do.
        for step in range(len(self._hashes)):
            places = np.minimum(first + step, len(self._hashes) - 1)
            has_hash = (self._hashes[places] == hashes) & (first + step < len(self._hashes))
            open_places = np.flatnonzero(has_hash & (found == _NOT_THERE))
            if not len(open_places):
                break
            rows = self._rows[places[open_places]]
            for place, row, name in zip(
                open_places.tolist(), rows.tolist(), self._names(rows), strict=True
            ):
                if name == names[place]:
                    found[place] = row
        return found

    def read(self, rows: Int[np.ndarray, " n"]) -> list[np.ndarray]:
        """The ids of texts, each one's first `max_length`: views of the mapped files."""
        shards, places = self._locate(rows)
        texts = []
        for number, place in zip(shards, places, strict=True):
            shard = self._shards[number]
            texts.append(shard.ids[shard.offsets[place] : shard.offsets[place + 1]])
        return texts

    def _names(self, rows: Int64[np.ndarray, " n"]) -> list[str]:
        shards, places = self._locate(rows)
        return [
            self._shards[number].names[place].as_py()
            for number, place in zip(shards, places, strict=True)
        ]

    def _locate(self, rows: Int[np.ndarray, " n"]) -> tuple[list[int], list[int]]:
        """The number of each text's shard, and its place there."""
        shards = np.searchsorted(self._starts, rows, side="right") - 1
        return shards.tolist(), (rows - self._starts[shards]).tolist()


def _join(columns: Sequence[np.ndarray], dtype: type[np.generic]) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *columns])
