"""The columns of a document store, and how documents become them.

id, url, title, body     text, as the source has it
fingerprint              64 bits of BLAKE2b of the body
line, offset             where it stands in the source: record from 1, byte from 0
"""

from dataclasses import dataclass, field
from hashlib import sha256
from typing import IO

import pyarrow as pa

from jaxrank.data.document_store.reading import LocatedDocument
from jaxrank.data.documents import body_fingerprint

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("body", pa.large_string(), nullable=False),
        pa.field("fingerprint", pa.uint64(), nullable=False),
        pa.field("line", pa.int64(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
    ]
)


class HashedFile:
    """A file that is only written to, and the SHA-256 and number of the bytes so far."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = sha256()
        self.size = 0

    def write(self, data: bytes | pa.Buffer) -> int:
        """Append bytes."""
        self._digest.update(data)
        self.size += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        """Hand on what was written."""
        self._file.flush()

    def hexdigest(self) -> str:
        """SHA-256 of all that was written."""
        return self._digest.hexdigest()

    @property
    def closed(self) -> bool:
        """Whether the file is closed."""
        return self._file.closed


@dataclass
class Batch:
    """Documents that wait to be written together, column by column."""

    columns: dict[str, list[str | int]] = field(
        default_factory=lambda: {name: [] for name in SCHEMA.names}
    )
    num_bytes: int = 0

    def add(self, located: LocatedDocument) -> None:
        """Append a document."""
        document_id, fields = located.document
        row = {
            "id": document_id,
            **fields._asdict(),
            "fingerprint": body_fingerprint(fields.body),
            "line": located.line,
            "offset": located.offset,
        }
        for name, value in row.items():
            self.columns[name].append(value)
        self.num_bytes += located.num_bytes

    def __len__(self) -> int:
        return len(self.columns["id"])

    def as_record_batch(self) -> pa.RecordBatch:
        """The documents as Arrow columns."""
        return pa.RecordBatch.from_pydict(self.columns, schema=SCHEMA)
