"""What every layout comes to: documents to be read in order, queries, and judgements by split."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from jaxrank.data.document_store.source import DocumentSource
from jaxrank.data.document_text import DocumentText
from jaxrank.errors import InputError
from jaxrank.evaluation.qrels import Qrels

Layout = Literal["beir", "msmarco-document", "msmarco-passage", "ir-datasets"]
"""Names of the layouts."""


class Query(NamedTuple):
    """A query and where it was read."""

    query_id: str
    text: str
    where: str


@dataclass(frozen=True)
class CollectionSource:
    """A collection in the files, or by the package, that it is published in.

    Reading is put off: nothing but names has been looked at.
    """

    layout: Layout
    document_text: DocumentText
    """Which fields become a document's text, unless the user says otherwise."""
    documents: DocumentSource
    queries: Callable[[], Iterator[Query]]
    """All queries; those of several splits may come several times."""
    qrels: Mapping[str, Callable[[], Qrels]]
    """Split -> its judgements."""
    files: tuple[Path, ...] = ()
    """All files that are read, the documents' first."""
    notes: tuple[str, ...] = ()
    """What is left out, and why."""
    lookup: Path | None = field(default=None)
    """MS MARCO's list of where each document begins, against which the documents are checked."""


def find_file(folder: Path, name: str) -> Path | None:
    """The file of this name, plain or, where that is not there, gzip."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    return None


def gather_queries(queries: Iterator[Query]) -> dict[str, str]:
    """Query id -> text; a query may come again with the same text.

    Raises:
        InputError: naming both places, where one id has two texts; or there are no queries.
    """
    texts: dict[str, str] = {}
    places: dict[str, str] = {}
    for query in queries:
        if texts.setdefault(query.query_id, query.text) != query.text:
            raise InputError(
                f"{query.where}: query {query.query_id!r} has another text than at "
                f"{places[query.query_id]}; one text for each id is needed"
            )
        places.setdefault(query.query_id, query.where)
    return texts
