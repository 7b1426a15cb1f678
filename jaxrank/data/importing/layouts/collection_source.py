"""What every layout comes to: documents to be read in order, queries, and judgements by split."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from jaxrank.data.document_store.source import DocumentSource
from jaxrank.data.document_text import DocumentText
from jaxrank.errors import InputError
from jaxrank.evaluation.qrels import Qrels, read_qrels

Layout = Literal["beir", "msmarco-document", "msmarco-passage", "ir-datasets"]
"""Names of the layouts."""

LayoutOption = Literal["auto", Layout]
"""A layout, or `auto` for the one whose documents' file is there."""


class Query(NamedTuple):
    """A query and where it was read."""

    query_id: str
    text: str
    where: str


class Judgements(NamedTuple):
    """Judgements of a split."""

    qrels: Qrels
    repeated: int = 0
    """Further lines that say again, with the same grade, what one has said."""


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
    qrels: Mapping[str, Callable[[], Judgements]]
    """Split -> its judgements."""
    files: tuple[Path, ...] = ()
    """All files that are read, the documents' first."""
    datasets: tuple[str, ...] = ()
    """Ids by which a package knows it, where that reads the files."""
    notes: tuple[str, ...] = ()
    """What is left out, and why."""
    lookup: Path | None = field(default=None)
    """MS MARCO's list of where each document begins, against which the documents are checked."""


def find_file(folder: Path, name: str) -> Path | None:
    """The file of this name, plain or gzip; None if there is neither.

    Raises:
        InputError: both are there, and may differ.
    """
    paths = (folder / name, folder / f"{name}.gz")
    found = [path for path in paths if path.is_file()]
    if len(found) > 1:
        raise InputError(f"{folder}: {name} and {name}.gz are both there; remove one of them")
    return found[0] if found else None


def read_judgements(path: Path) -> Judgements:
    """The judgements of a file, which may have each pair once; InputError names file and line."""
    return Judgements(read_qrels(path))


def gather_queries(read: Callable[[], Iterator[Query]]) -> dict[str, str]:
    """Query id -> text; a query may come again with the same text.

    Args:
        read: gives all queries, from the first on at each call.

    Raises:
        InputError: naming both places, where one id has two texts.
    """
    texts: dict[str, str] = {}
    for query in read():
        if texts.setdefault(query.query_id, query.text) != query.text:
            # Looked for again, so that no place of a million queries is kept.
            first = next(earlier.where for earlier in read() if earlier.query_id == query.query_id)
            raise InputError(
                f"{query.where}: query {query.query_id!r} has another text than at {first}; one "
                "text for each id is needed"
            )
    return texts
