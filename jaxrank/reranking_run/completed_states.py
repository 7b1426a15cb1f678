"""States of a store, and of the documents that it lacks, which are read when they are asked for."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jaxrank.data.hashing import hash_text
from jaxrank.ranking.document_states.cache import CachedStates
from jaxrank.ranking.document_states.encoding import DocumentEncoder
from jaxrank.ranking.document_states.records import Record
from jaxrank.ranking.document_states.states import DocumentStates


class ComputedStates(DocumentStates):
    """States that are computed whenever they are asked for, and counted.

    Args:
        encoder: makes them.
        documents: id -> text, of all that can be asked for.
    """

    def __init__(self, encoder: DocumentEncoder, documents: Mapping[str, str]) -> None:
        self.identity, self.dtype = encoder.identity, encoder.dtype
        self.computed_in, self.where = encoder.computed_in, "document states"
        self.readings = 0
        """Documents that were read so far, as often as they were."""
        self._encoder = encoder
        self._documents = documents

    @property
    def document_ids(self) -> Sequence[str]:
        """Of all that can be asked for."""
        return list(self._documents)

    def __contains__(self, document_id: object) -> bool:
        return document_id in self._documents

    def visit(self, document_ids: Sequence[str], use: Callable[[int, Record], None]) -> None:
        """As of any states; documents are read for it."""
        for position, record in enumerate(self.records(document_ids)):
            use(position, record)

    def records(self, document_ids: Sequence[str]) -> list[Record]:
        """As of any states; documents are read for it."""
        self.readings += len(document_ids)
        return self._encoder.encode([(name, self._documents[name]) for name in document_ids])

    def lengths(self, document_ids: Sequence[str]) -> np.ndarray:
        """Tokens of each document, int32 (n,); documents are read for it."""
        return np.array([record.length for record in self.records(document_ids)], np.int32)

    def text_hashes(self, document_ids: Sequence[str]) -> np.ndarray:
        """As of any states; nothing is computed."""
        return np.array([hash_text(self._documents[name]) for name in document_ids], np.uint64)


class CompletedStates(DocumentStates):
    """States of all documents of a collection: a store's, and the others computed.

    What was computed stays in memory up to a number of bytes, so that a document that several
    queries share is read once; those asked for longest ago go first.

    Args:
        stored: states that are there.
        computed: the others, of the same model and kept in the same type.
        capacity_bytes: of computed states that are kept.
    """

    def __init__(
        self, stored: DocumentStates, computed: ComputedStates, *, capacity_bytes: int
    ) -> None:
        self._stand_for(stored)
        if computed.computed_in != stored.computed_in:
            self.computed_in = f"{stored.computed_in} and {computed.computed_in}"
        self._stored = stored
        self._computed = CachedStates(computed, capacity_bytes)
        # Besides the cache: lengths and states of the same documents are asked for in turn.
        self._latest: Mapping[str, Record] = {}

    @property
    def document_ids(self) -> Sequence[str]:
        """Of the whole collection."""
        return self._computed.document_ids

    def __contains__(self, document_id: object) -> bool:
        return document_id in self._computed

    @property
    def version(self) -> int:
        """Of the store's; what is computed stays the same."""
        return self._stored.version

    def visit(self, document_ids: Sequence[str], use: Callable[[int, Record], None]) -> None:
        """As of any states; what is not stored is computed for it."""
        computed = self._compute_missing(document_ids)
        stored: list[int] = []
        for position, name in enumerate(document_ids):
            if name in computed:
                use(position, computed[name])
            else:
                stored.append(position)
        self._stored.visit(
            [document_ids[position] for position in stored],
            lambda index, record: use(stored[index], record),
        )

    def lengths(self, document_ids: Sequence[str]) -> np.ndarray:
        """Tokens of each document, int32 (n,); what is not stored is computed for it."""
        computed = self._compute_missing(document_ids)
        stored = [name for name in document_ids if name not in computed]
        lengths = dict(zip(stored, self._stored.lengths(stored).tolist(), strict=True))
        lengths |= {name: record.length for name, record in computed.items()}
        return np.array([lengths[name] for name in document_ids], np.int32)

    def text_hashes(self, document_ids: Sequence[str]) -> np.ndarray:
        """As of any states; nothing is computed."""
        missing = self._stored.missing(document_ids)
        lacking = frozenset(missing)
        there = [name for name in document_ids if name not in lacking]
        hashes = dict(zip(there, self._stored.text_hashes(there).tolist(), strict=True))
        hashes |= zip(missing, self._computed.text_hashes(missing).tolist(), strict=True)
        return np.array([hashes[name] for name in document_ids], np.uint64)

    def read_ahead(self, document_ids: Sequence[str]) -> None:
        """Compute what is missing of these documents together, which takes less time than apart."""
        self._computed.records(self._stored.missing(document_ids))

    def _compute_missing(self, document_ids: Sequence[str]) -> Mapping[str, Record]:
        """The records of those that are not stored, and perhaps of others that are not."""
        latest = self._latest
        missing = self._stored.missing(document_ids)
        if not latest.keys() >= set(missing):
            latest = dict(zip(missing, self._computed.records(missing), strict=True))
            self._latest = latest
        return latest
