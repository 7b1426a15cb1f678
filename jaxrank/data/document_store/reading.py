"""Goes through a source from a given place on, and keeps count of what it meets."""

from collections.abc import Iterator
from hashlib import sha256
from typing import Literal, NamedTuple

from jaxrank.data.document_store.manifest import Reached
from jaxrank.data.document_store.source import DocumentSource, SourceDocument
from jaxrank.errors import InputError
from jaxrank.progress import progress_bar

Malformed = Literal["refuse", "skip"]
"""What becomes of a record that holds no document: an error, or it is passed over and counted."""

_COUNTS = ("documents", "empty_titles", "empty_bodies", "malformed", "first_malformed")


class SourceChangedError(Exception):
    """The source's records are not those that an earlier reading of it met."""


class LocatedDocument(NamedTuple):
    """A document and where it stands in its source."""

    document: SourceDocument
    line: int
    """Number of its record, from 1."""
    offset: int
    """Of its record's first byte, from 0."""
    num_bytes: int
    """Of its record."""


class SourceReading:
    """One pass over a source.

    Args:
        start: where an earlier reading stopped; the records up to there are only compared with it.
        malformed: whether a record without a document is an error or passed over and counted.

    Attributes:
        reached: all that was met so far, with what `start` says.
    """

    def __init__(
        self,
        source: DocumentSource,
        *,
        start: Reached,
        malformed: Malformed,
        progress: bool = False,
    ) -> None:
        self._source = source
        self._malformed = malformed
        self._progress = progress
        self._start = start
        self._counts = {name: getattr(start, name) for name in _COUNTS}
        self._digest = sha256()
        self._records = 0
        self._num_bytes = 0

    @property
    def reached(self) -> Reached:
        """Place in the source behind the last document that was given."""
        return Reached(
            records=self._records,
            num_bytes=self._num_bytes,
            sha256=self._digest.hexdigest(),
            **self._counts,
        )

    def documents(self) -> Iterator[LocatedDocument]:
        """The documents behind the start; at the end, `reached` stands behind the last record.

        Raises:
            SourceChangedError: the records before the start are not those of the earlier reading.
            InputError: a malformed record, where these are refused.
        """
        records = self._records_with_progress()
        while self._records < self._start.records and next(records, None) is not None:
            pass
        if self.reached != self._start:
            raise SourceChangedError
        for record in records:
            document = self._parse(record)
            if document is not None:
                offset = self._num_bytes - len(record)
                yield LocatedDocument(document, self._records, offset, len(record))

    def _records_with_progress(self) -> Iterator[bytes]:
        """The records, each counted before it is given."""
        with progress_bar(
            description="reading documents",
            unit="B",
            enabled=self._progress,
            total=self._source.num_bytes,
        ) as bar:
            bar.unit_scale = True
            for record in self._source.records():
                self._digest.update(record)
                self._records += 1
                self._num_bytes += len(record)
                bar.update(len(record))
                yield record

    def _parse(self, record: bytes) -> SourceDocument | None:
        counts = self._counts
        try:
            document = self._source.parse(record, f"{self._source.name}:{self._records}")
        except InputError:
            if self._malformed == "refuse":
                raise
            counts["malformed"] += 1
            counts["first_malformed"] = counts["first_malformed"] or self._records
            return None
        if document is not None:
            counts["documents"] += 1
            counts["empty_titles"] += not document.fields.title.strip()
            counts["empty_bodies"] += not document.fields.body.strip()
        return document
