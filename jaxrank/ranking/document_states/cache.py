"""The states of documents that are asked for often, kept in memory up to a number of bytes."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np

from jaxrank.ranking.document_states.records import Record
from jaxrank.ranking.document_states.states import DocumentStates
from jaxrank.ranking.document_states.threads import visit_in_threads


class CachedStates(DocumentStates):
    """States of others, of which those asked for last are kept; safe from several threads.

    Args:
        states: where documents' states come from.
        capacity_bytes: of the states that are kept at most; a larger one is handed on and not kept.

    Attributes:
        hits: documents that were asked for and kept.
        misses: documents that were asked for and came from `states`.
    """

    def __init__(self, states: DocumentStates, capacity_bytes: int) -> None:
        if capacity_bytes < 0:
            raise ValueError(f"capacity_bytes: got {capacity_bytes}; at least 0 is needed")
        self.identity, self.dtype = states.identity, states.dtype
        self.computed_in, self.where = states.computed_in, states.where
        self.hits = 0
        self.misses = 0
        self._states = states
        self._capacity_bytes = capacity_bytes
        self._kept: OrderedDict[str, Record] = OrderedDict()
        """Those asked for last come last."""
        self._num_bytes = 0
        self._lock = threading.Lock()

    @property
    def hit_rate(self) -> float:
        """Of the documents asked for so far, the share that was kept; 0 before the first."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else 0.0

    @property
    def nbytes(self) -> int:
        """Bytes of the states that are kept now."""
        return self._num_bytes

    @property
    def document_ids(self) -> Sequence[str]:
        """All ids, whether their states are kept or not."""
        return self._states.document_ids

    def __len__(self) -> int:
        return len(self._states)

    def __contains__(self, document_id: object) -> bool:
        return document_id in self._states

    def missing(self, document_ids: Sequence[str]) -> list[str]:
        """Those of which there is no state, each once, in their order."""
        return self._states.missing(document_ids)

    def visit(self, document_ids: Sequence[str], use: Callable[[int, Record], None]) -> None:
        """As of any states; those not kept are read at once, and kept."""
        visit_in_threads(self.records(document_ids), use)

    def records(self, document_ids: Sequence[str]) -> list[Record]:
        """As of any states; those not kept are read at once, and kept."""
        found: dict[str, Record] = {}
        with self._lock:
            for document_id in document_ids:
                record = self._kept.get(document_id)
                if record is not None:
                    self._kept.move_to_end(document_id)
                    found[document_id] = record
        wanted = [one for one in dict.fromkeys(document_ids) if one not in found]
        # Outside of the lock: others go on with what is kept while this one waits for the disk.
        read = self._states.records(wanted)
        found.update(zip(wanted, read, strict=True))
        with self._lock:
            self.hits += len(document_ids) - len(wanted)
            self.misses += len(wanted)
            for record in read:
                self._keep(record)
        return [found[document_id] for document_id in document_ids]

    def lengths(self, document_ids: Sequence[str]) -> np.ndarray:
        """Tokens that were read of each document, int32 (n,); no state is read."""
        return self._states.lengths(document_ids)

    def _keep(self, record: Record) -> None:
        """Keep a record, at the cost of those asked for longest ago; needs the lock."""
        earlier = self._kept.pop(record.document_id, None)
        if earlier is not None:  # another thread has read it at the same time
            self._num_bytes -= earlier.nbytes
        if record.nbytes > self._capacity_bytes:
            return
        while self._num_bytes + record.nbytes > self._capacity_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._num_bytes -= oldest.nbytes
        self._kept[record.document_id] = record
        self._num_bytes += record.nbytes
