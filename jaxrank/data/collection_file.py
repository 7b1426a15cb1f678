"""collection.json: what a collection folder says about itself; it may be missing.

{"format": 1, "layout": "msmarco-document", "document_text": "url-title-body"}
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from jaxrank.data.document_text import DocumentText
from jaxrank.errors import InputError
from jaxrank.files import atomic_open, read_json

COLLECTION_FILE = "collection.json"

_FORMAT = 1


@dataclass(frozen=True)
class CollectionFile:
    """Choices that go with a collection."""

    document_text: DocumentText | None = None
    """Which fields of a document become its text; None where the file does not say."""
    layout: str | None = None
    """Layout of the files that the collection was imported from."""

    def write(self, folder: Path) -> None:
        """Write the file into a collection folder."""
        content = {"format": _FORMAT, "layout": self.layout, "document_text": self.document_text}
        with atomic_open(folder / COLLECTION_FILE) as file:
            json.dump(content, file, indent=1)
            file.write("\n")


def read_collection_file(folder: Path) -> CollectionFile:
    """Read the file of a collection folder; no choices where there is none.

    Raises:
        InputError: naming the file and what it should hold.
    """
    path = folder / COLLECTION_FILE
    if not path.exists():
        return CollectionFile()
    content = read_json(path)
    if content.pop("format", None) != _FORMAT:
        raise InputError(f"{path}: 'format': {_FORMAT} is needed, the one this version reads")
    document_text, layout = content.pop("document_text", None), content.pop("layout", None)
    if content:
        raise InputError(
            f"{path}: got {sorted(content)}; format, layout and document_text are known"
        )
    if document_text is not None and document_text not in get_args(DocumentText):
        raise InputError(
            f"{path}: 'document_text': got {document_text!r}; needed is one of "
            f"{', '.join(get_args(DocumentText))}"
        )
    if layout is not None and not isinstance(layout, str):
        raise InputError(f"{path}: 'layout': got {layout!r}; a name is needed")
    return CollectionFile(document_text, layout)
