"""Documents' states in memory."""

from collections.abc import Callable, Iterable, Sequence

from jaxrank.errors import InputError
from jaxrank.ranking.document_states.formats import StateDType, stored_arrays
from jaxrank.ranking.document_states.identity import StateIdentity
from jaxrank.ranking.document_states.records import Record, check_record
from jaxrank.ranking.document_states.states import DocumentStates
from jaxrank.ranking.document_states.threads import visit_in_threads


class MemoryStates(DocumentStates):
    """States in memory; `add` puts them in."""

    def __init__(self, identity: StateIdentity, dtype: StateDType, computed_in: str) -> None:
        self.identity = identity
        self.dtype = dtype
        self.computed_in = computed_in
        self.where = "document states in memory"
        self._records: dict[str, Record] = {}

    @property
    def document_ids(self) -> Sequence[str]:
        """All ids, in the order in which they were added."""
        return list(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, document_id: object) -> bool:
        return document_id in self._records

    def add(self, records: Iterable[Record]) -> None:
        """Take records in, without copying them.

        Raises:
            InputError: a document that is there already, one longer than the budget, or a state
                that is not finite; the records before it are in.
            ValueError: a record of other arrays than these states have.
        """
        stored = stored_arrays(self.identity.arrays, self.dtype)
        for record in records:
            check_record(record, stored, self.identity.document_budget, self.computed_in)
            if record.document_id in self._records:
                raise InputError(
                    f"document {record.document_id!r}: is among the {self.where} already; each is "
                    "needed once"
                )
            self._records[record.document_id] = record

    def visit(self, document_ids: Sequence[str], use: Callable[[int, Record], None]) -> None:
        """As of any states; the records are those that were added."""
        visit_in_threads(self.records(document_ids), use)

    def records(self, document_ids: Sequence[str]) -> list[Record]:
        """The records themselves, in the order asked for; not to be written to."""
        return [self._record(document_id) for document_id in document_ids]

    def _record(self, document_id: str) -> Record:
        record = self._records.get(document_id)
        if record is None:
            raise self._refuse_missing(document_id)
        return record
