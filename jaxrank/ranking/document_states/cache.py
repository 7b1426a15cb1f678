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

    All are let go when `states` changes otherwise than by more documents, e.g. after a deletion.

    Args:
        states: where documents' states come from.
        capacity_bytes: of the states that are kept at most; a larger one is handed on and not kept.

    Attributes:
        hits: documents that were asked for and kept; of one call each document counts once.
        misses: documents that were asked for and came from `states`, counted likewise.
        kept_bytes: of the states that are kept now.
    """

    def __init__(self, states: DocumentStates, capacity_bytes: int) -> None:
        if capacity_bytes < 0:
            raise ValueError(f"capacity_bytes: got {capacity_bytes}; at least 0 is needed")
        self._stand_for(states)
        self.hits = 0
        self.misses = 0
        self.kept_bytes = 0
        self._states = states
        self._capacity_bytes = capacity_bytes
        self._kept: OrderedDict[str, Record] = OrderedDict()
        """Those asked for last come last."""
        self._kept_version = states.version
        self._lock = threading.Lock()

    @property
    def hit_rate(self) -> float:
        """Of the documents asked for so far, the share that was kept; 0 before the first."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else 0.0

    @property
    def nbytes(self) -> int:
        """Bytes of all states, whether they are kept or not."""
        return self._states.nbytes

    @property
    def version(self) -> int:
        """As of any states."""
        return self._states.version

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
            version = self._let_go_of_old()
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
            self.hits += len(found) - len(wanted)
            self.misses += len(wanted)
            if self._let_go_of_old() == version:  # else what was read may be old as well
                for record in read:
                    self._keep(record)
        return [found[document_id] for document_id in document_ids]

    def lengths(self, document_ids: Sequence[str]) -> np.ndarray:
        """As of any states; only of documents that are not kept is `states` asked."""
        with self._lock:
            self._let_go_of_old()
            kept = {name: self._kept[name].length for name in document_ids if name in self._kept}
        wanted = [one for one in dict.fromkeys(document_ids) if one not in kept]
        kept.update(zip(wanted, self._states.lengths(wanted).tolist(), strict=True))
        return np.array([kept[document_id] for document_id in document_ids], np.int32)

    def text_hashes(self, document_ids: Sequence[str]) -> np.ndarray:
        """As of any states; no state is read where `states` need not read it."""
        return self._states.text_hashes(document_ids)

    def _let_go_of_old(self) -> int:
        """Keep nothing of another version of the states than the present one; needs the lock."""
        version = self._states.version
        if version != self._kept_version:
            self._kept.clear()
            self.kept_bytes, self._kept_version = 0, version
        return version

    def _keep(self, record: Record) -> None:
        """Keep a record, at the cost of those asked for longest ago; needs the lock."""
        earlier = self._kept.pop(record.document_id, None)
        if earlier is not None:  # another thread has read it at the same time
            self.kept_bytes -= earlier.nbytes
        if record.nbytes > self._capacity_bytes:
            return
        while self.kept_bytes + record.nbytes > self._capacity_bytes:
            _, oldest = self._kept.popitem(last=False)
            self.kept_bytes -= oldest.nbytes
        self._kept[record.document_id] = record
        self.kept_bytes += record.nbytes
