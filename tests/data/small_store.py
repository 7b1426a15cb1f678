"""A source of 40 documents, stores built from it in small pieces, and a source that stops."""

from collections.abc import Iterator
from pathlib import Path

from jaxrank.data.document_store.manifest import Manifest
from jaxrank.data.document_store.reading import Malformed
from jaxrank.data.document_store.writer import build_store
from jaxrank.data.document_text import DocumentFields
from jaxrank.data.importing.layouts.msmarco import DocumentLines

NUM_DOCUMENTS = 40
EXPECTED = {
    f"D{number}": DocumentFields(
        body=f'body {number} "quoted\u2028 \x85 text\r of {number}' + " more" * (number % 7),
        title="" if number % 10 == 0 else f"Title é {number}",
        url=f"https://example.org/{number}",
    )
    for number in range(NUM_DOCUMENTS)
}


class StoppedError(Exception):
    """What a source that stops ends with."""


class StoppingLines(DocumentLines):
    """Ends with an error after some records, as a killed process does."""

    def __init__(self, path: Path, num_records: int) -> None:
        super().__init__(path)
        self.num_records = num_records

    def records(self) -> Iterator[bytes]:
        """The records before the error."""
        for number, record in enumerate(super().records()):
            if number == self.num_records:
                raise StoppedError
            yield record


def write_source(folder: Path) -> Path:
    """Write the documents as MS MARCO does."""
    path = folder / "msmarco-docs.tsv"
    path.write_bytes(as_lines(EXPECTED))
    return path


def as_lines(documents: dict[str, DocumentFields]) -> bytes:
    """Documents as lines of MS MARCO's file."""
    lines = (f"{name}\t{d.url}\t{d.title}\t{d.body}\n" for name, d in documents.items())
    return "".join(lines).encode()


def build(
    folder: Path, path: Path, *, stop: int | None = None, malformed: Malformed = "refuse"
) -> Manifest:
    """Build with about five documents a batch and three batches a file."""
    source = DocumentLines(path) if stop is None else StoppingLines(path, stop)
    return build_store(folder, source, malformed=malformed, shard_bytes=1200, batch_bytes=400)


def content(folder: Path) -> dict[str, bytes]:
    """Name -> bytes, of a store's files."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
