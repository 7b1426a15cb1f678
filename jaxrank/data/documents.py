"""Documents by id: what all kinds of them offer, and those of a corpus.jsonl."""

import os
import weakref
from abc import abstractmethod
from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from jaxrank.data.document_text import DocumentFields, DocumentText, compose
from jaxrank.data.hashing import hash_text
from jaxrank.data.jsonl_entries import parse_entry
from jaxrank.errors import InputError
from jaxrank.files import BOM
from jaxrank.progress import progress_bar

DEFAULT_DOCUMENT_TEXT: DocumentText = "title-body"
"""The text of a document where neither its collection nor the caller says otherwise."""


class Documents(Mapping[str, str]):
    """Document id -> text, in the order of the source. Reading is safe from several threads.

    Attributes:
        document_text: which fields become the text.
        holds_fingerprints: whether `fingerprint` looks them up, or reads the body for each.
    """

    document_text: DocumentText
    holds_fingerprints: ClassVar[bool] = False

    @abstractmethod
    def fields(self, document_id: str) -> DocumentFields:
        """The fields of a document; KeyError where there is none of this id."""

    def __getitem__(self, document_id: str) -> str:
        return compose(self.fields(document_id), self.document_text)

    def fingerprint(self, document_id: str) -> int:
        """64 bits that are equal where bodies are equal, and else almost surely are not."""
        return hash_text(self.fields(document_id).body)

    def iter_fields(self) -> Iterator[tuple[str, DocumentFields]]:
        """Each id with its fields, in the order of the source."""
        for document_id in self:
            yield document_id, self.fields(document_id)

    def items(self) -> ItemsView[str, str]:
        """Ids with their texts, read from front to back."""
        return _StreamedItems(self)

    def values(self) -> ValuesView[str]:
        """The texts, read from front to back."""
        return _StreamedValues(self)


class _StreamedItems(ItemsView[str, str]):
    """Ids with texts without a look-up for each, which a mapping would do."""

    _mapping: Documents

    def __iter__(self) -> Iterator[tuple[str, str]]:
        how = self._mapping.document_text
        return ((name, compose(fields, how)) for name, fields in self._mapping.iter_fields())


class _StreamedValues(ValuesView[str]):
    """Texts without a look-up for each."""

    _mapping: Documents

    def __iter__(self) -> Iterator[str]:
        return (text for _, text in self._mapping.items())


class JsonlDocuments(Documents):
    """The documents of a corpus.jsonl, read from disk when asked for.

    Lines are {"_id", "text"} and may have "title" and "url". Opening passes over the file once,
    checks every line and keeps ids and byte offsets in memory: about 150 bytes a document.

    Raises:
        InputError: naming file and line: no JSON object, bytes that are not UTF-8, a missing or
            repeated id, a missing text; or a gzip file.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        document_text: DocumentText = DEFAULT_DOCUMENT_TEXT,
        progress: bool = False,
    ) -> None:
        self.document_text = document_text
        self._path = Path(path)
        if self._path.suffix == ".gz":
            raise InputError(
                f"{self._path}: documents cannot be read one by one from gzip; run "
                f"`python -m jaxrank.import_collection --source {self._path.parent} --output DIR`, "
                "or gunzip it"
            )
        if not self._path.is_file():
            raise InputError(f"{self._path}: no such file; a corpus in JSON lines is needed")
        self._rows: dict[str, int] = {}
        starts = []
        size = self._path.stat().st_size
        with (
            open(self._path, "rb") as file,
            progress_bar(
                description=f"indexing {self._path.name}", unit="B", enabled=progress, total=size
            ) as bar,
        ):
            bar.unit_scale = True
            start = 0
            for number, line in enumerate(file, start=1):
                if line.strip() and line.strip() != BOM:
                    where = f"{self._path}:{number}"
                    document_id = parse_entry(line, where)["_id"]
                    if document_id in self._rows:
                        raise InputError(
                            f"{where}: id {document_id!r} was there before; each id is needed once"
                        )
                    self._rows[document_id] = len(self._rows)
                    starts.append(start)
                start += len(line)
                bar.update(len(line))
        if not starts:
            raise InputError(f"{self._path}: no documents")
        self._offsets = np.array([*starts, start], np.int64)
        self._handle = os.open(self._path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._handle)

    def fields(self, document_id: str) -> DocumentFields:
        """The fields of a document; KeyError where there is none of this id."""
        row = self._rows[document_id]
        start, end = self._offsets[row : row + 2].tolist()
        where = f"{self._path}, document {document_id!r}"
        entry = parse_entry(os.pread(self._handle, end - start, start), where)
        if entry["_id"] != document_id:
            raise InputError(f"{where}: the file has changed since it was opened; start again")
        return entry_fields(entry)

    def __contains__(self, document_id: object) -> bool:
        return document_id in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def entry_fields(entry: Mapping[str, Any]) -> DocumentFields:
    """The fields of a checked line of corpus.jsonl."""
    return DocumentFields(entry["text"], entry.get("title", ""), entry.get("url", ""))
