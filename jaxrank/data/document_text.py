"""Which fields of a document become its text: a choice by name."""

from typing import Literal, NamedTuple

DocumentText = Literal["body", "title-body", "url-title-body"]
"""The fields, in their order, that a document's text is joined from, by one blank each."""


class DocumentFields(NamedTuple):
    """What a collection knows of one document; a field that it does not have is empty."""

    body: str
    title: str = ""
    url: str = ""


def compose(fields: DocumentFields, document_text: DocumentText) -> str:
    """The text of a document: its fields in the order of the choice, empty ones passed over."""
    parts = (getattr(fields, name) for name in document_text.split("-"))
    return " ".join(part for part in parts if part)
