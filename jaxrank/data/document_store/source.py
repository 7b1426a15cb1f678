"""Where a document store's documents come from: records of bytes, each parsed into one document."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jaxrank.data.document_text import DocumentFields
from jaxrank.files import BOM, decode_line, read_raw_lines


class SourceDocument(NamedTuple):
    """One document of a source."""

    document_id: str
    fields: DocumentFields


class DocumentSource(ABC):
    """Documents that can be read again and again, in the same order and as the same bytes.

    Attributes:
        name: what messages call it; its path where it is a file.
        kind: the format that records have; the same for a plain and a gzip file.
        num_bytes: of all records together, where it is known before they are read.
    """

    name: str
    kind: str
    num_bytes: int | None = None

    @abstractmethod
    def records(self) -> Iterator[bytes]:
        """All records from the first on."""

    @abstractmethod
    def parse(self, record: bytes, where: str) -> SourceDocument | None:
        """The document of a record; None for a record that holds none, as a blank line.

        Raises:
            InputError: beginning with `where`, for a malformed record.
        """


class LineSource(DocumentSource):
    """A file with a document a line, plain or gzip; a byte-order mark and CRLF are read over."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)
        if path.suffix != ".gz" and path.is_file():
            self.num_bytes = path.stat().st_size

    def records(self) -> Iterator[bytes]:
        """The lines of the file, with their ends."""
        return read_raw_lines(self.path)

    def parse(self, record: bytes, where: str) -> SourceDocument | None:
        """The document of a line; None for a blank one."""
        line = record.removeprefix(BOM).rstrip(b"\r\n")
        if not line.strip():
            return None
        return self.parse_line(decode_line(line, where), where)

    @abstractmethod
    def parse_line(self, line: str, where: str) -> SourceDocument:
        """The document of a line that is not blank, without its end.

        Raises:
            InputError: beginning with `where`, for a malformed line.
        """
