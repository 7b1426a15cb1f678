"""Millions of documents on disk, read by id without all of them in memory.

A folder, which `build_store` writes:

    manifest.json                   the files below with sizes and SHA-256, and counts
    00000.arrow, 00001.arrow, ...   ids, urls, titles and bodies, about 128 MiB each
    id-hashes.npy, id-rows.npy      id -> row
"""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

from jaxrank.data.document_store.index import DocumentIndex
from jaxrank.data.document_store.manifest import (
    MANIFEST_FILE,
    UNFINISHED_FILE,
    Manifest,
    check_digests,
    check_sizes,
    mend_of,
    read_manifest,
)
from jaxrank.data.document_store.rows import DocumentRows
from jaxrank.data.document_text import DocumentFields, DocumentText
from jaxrank.data.documents import DEFAULT_DOCUMENT_TEXT, Documents
from jaxrank.errors import InputError


class DocumentStore(Documents):
    """Documents of a folder; may be sent to another process, which opens it again.

    Attributes:
        manifest: the folder's files and counts.
    """

    holds_fingerprints: ClassVar[bool] = True

    def __init__(self, folder: Path, manifest: Manifest, document_text: DocumentText) -> None:
        self.document_text = document_text
        self.manifest = manifest
        self._folder = folder
        self._rows = DocumentRows(folder, manifest.shards)
        self._index = DocumentIndex(folder)

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        document_text: DocumentText = DEFAULT_DOCUMENT_TEXT,
        verify: bool = False,
    ) -> "DocumentStore":
        """Open a store that is complete.

        Args:
            document_text: which fields become a document's text.
            verify: whether to read every byte and compare it with its SHA-256, which takes about a
                second for each GB; without, only the files' sizes are looked at.

        Raises:
            InputError: there is no store, it is unfinished, or a file of it is missing or damaged.
        """
        folder = Path(folder)
        if not (folder / MANIFEST_FILE).is_file():
            if (folder / UNFINISHED_FILE).is_file():
                raise InputError(
                    f"{folder}: unfinished; run the same import again, which goes on with it"
                )
            raise InputError(f"{folder / MANIFEST_FILE}: no such file; {mend_of(folder)}")
        manifest = read_manifest(folder / MANIFEST_FILE)
        check_sizes(folder, manifest)
        store = cls(folder, manifest, document_text)
        if verify:
            store.verify()
        return store

    def verify(self) -> None:
        """Compare every byte with what was written.

        Raises:
            InputError: naming the files that differ.
        """
        check_digests(self._folder, self.manifest)

    def digest(self) -> str:
        """SHA-256 that is equal where every byte of every document is; no document is read."""
        return sha256((self._folder / MANIFEST_FILE).read_bytes()).hexdigest()

    def fields(self, document_id: str) -> DocumentFields:
        """The fields of a document; KeyError where there is none of this id."""
        row = self._row(document_id)
        return DocumentFields(
            body=self._rows.value("body", row),
            title=self._rows.value("title", row),
            url=self._rows.value("url", row),
        )

    def fingerprint(self, document_id: str) -> int:
        """64 bits that are equal where bodies are; no text is read."""
        fingerprint: int = self._rows.value("fingerprint", self._row(document_id))
        return fingerprint

    def source_offset(self, document_id: str) -> int:
        """First byte of the document's record in the source that the store was built from."""
        offset: int = self._rows.value("offset", self._row(document_id))
        return offset

    def iter_fields(self) -> Iterator[tuple[str, DocumentFields]]:
        """Each id with its fields, in the order of the source, read from front to back."""
        for document_id, body, title, url in self._rows.scan("id", "body", "title", "url"):
            yield document_id, DocumentFields(body, title, url)

    def __contains__(self, document_id: object) -> bool:
        return isinstance(document_id, str) and self._find(document_id) is not None

    def __iter__(self) -> Iterator[str]:
        return (document_id for (document_id,) in self._rows.scan("id"))

    def __len__(self) -> int:
        return len(self._rows)

    def __reduce__(self) -> tuple[object, ...]:
        return _reopen, (self._folder, self.document_text)

    def _row(self, document_id: str) -> int:
        row = self._find(document_id)
        if row is None:
            raise KeyError(document_id)
        return row

    def _find(self, document_id: str) -> int | None:
        for row in self._index.candidates(document_id):
            if self._rows.value("id", row) == document_id:
                return row
        return None


def _reopen(folder: Path, document_text: DocumentText) -> DocumentStore:
    """What unpickling calls."""
    return DocumentStore.open(folder, document_text=document_text)
