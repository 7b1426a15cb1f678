"""The columns of a document store, and how documents become them.

id, url, title, body     text, as the source has it
fingerprint              64 bits of BLAKE2b of the body
line, offset             where it stands in the source: record from 1, byte from 0
"""

from dataclasses import dataclass, field

import pyarrow as pa

from jaxrank.data.document_store.reading import LocatedDocument
from jaxrank.data.hashing import hash_text

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
            "fingerprint": hash_text(fields.body),
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
