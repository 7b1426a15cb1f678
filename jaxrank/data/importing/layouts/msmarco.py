"""MS MARCO's own files, of documents and of passages, with the topics and judgements of TREC DL.

Each may end in .gz. Only tabs separate columns and only newlines end lines: quotes, U+2028 and lone
carriage returns are text.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from jaxrank.data.document_store.source import LineSource, SourceDocument
from jaxrank.data.document_store.store import DocumentStore
from jaxrank.data.document_text import DocumentFields, DocumentText
from jaxrank.data.importing.layouts.collection_source import (
    CollectionSource,
    Layout,
    Query,
    find_file,
    read_judgements,
)
from jaxrank.data.jsonl_entries import check_id
from jaxrank.errors import InputError
from jaxrank.files import read_lines
from jaxrank.progress import track

DOCUMENTS_FILE = "msmarco-docs.tsv"
LOOKUP_FILE = "msmarco-docs-lookup.tsv"
PASSAGES_FILE = "collection.tsv"

DOCUMENT_SPLITS = {
    "train": ("msmarco-doctrain-queries.tsv", "msmarco-doctrain-qrels.tsv"),
    "dev": ("msmarco-docdev-queries.tsv", "msmarco-docdev-qrels.tsv"),
    "dl19": ("msmarco-test2019-queries.tsv", "2019qrels-docs.txt"),
    "dl20": ("msmarco-test2020-queries.tsv", "2020qrels-docs.txt"),
}
"""Split -> queries and judgements of documents."""

PASSAGE_SPLITS = {
    "train": ("queries.train.tsv", "qrels.train.tsv"),
    "dev": ("queries.dev.small.tsv", "qrels.dev.small.tsv"),
    "dl19": ("msmarco-test2019-queries.tsv", "2019qrels-pass.txt"),
    "dl20": ("msmarco-test2020-queries.tsv", "2020qrels-pass.txt"),
}
"""Split -> queries and judgements of passages."""


class DocumentLines(LineSource):
    """msmarco-docs.tsv: id, url, title and body."""

    kind = DOCUMENTS_FILE

    def parse_line(self, line: str, where: str) -> SourceDocument:
        """The document of a line."""
        document_id, url, title, body = _split(line, where, "id", "url", "title", "body")
        return SourceDocument(document_id, DocumentFields(body, title, url))


class PassageLines(LineSource):
    """collection.tsv: id and text."""

    kind = PASSAGES_FILE

    def parse_line(self, line: str, where: str) -> SourceDocument:
        """The passage of a line."""
        document_id, body = _split(line, where, "id", "text")
        return SourceDocument(document_id, DocumentFields(body))


def msmarco_documents(folder: Path) -> CollectionSource:
    """The document ranking task's files, as far as they are in `folder`.

    Raises:
        InputError: the documents are not there.
    """
    return _make_source(
        folder,
        "msmarco-document",
        DocumentLines(_need(folder, DOCUMENTS_FILE)),
        DOCUMENT_SPLITS,
        # The paper does not say which fields its text has: this is our own choice.
        document_text="url-title-body",
        lookup=find_file(folder, LOOKUP_FILE),
    )


def msmarco_passages(folder: Path) -> CollectionSource:
    """The passage ranking task's files, as far as they are in `folder`.

    Raises:
        InputError: the passages are not there.
    """
    return _make_source(
        folder,
        "msmarco-passage",
        PassageLines(_need(folder, PASSAGES_FILE)),
        PASSAGE_SPLITS,
        document_text="body",
    )


def read_tsv_queries(path: Path) -> Iterator[Query]:
    """The queries of a file with an id, a tab and a text in each line; blank lines are passed over.

    Raises:
        InputError: naming file and line.
    """
    for number, line in read_lines(path):
        if line.strip():
            where = f"{path}:{number}"
            query_id, text = _split(line, where, "id", "text")
            if not text.strip():
                raise InputError(f"{where}: query {query_id!r} has no text; delete the line")
            yield Query(query_id, text, where)


def check_lookup(path: Path, store: DocumentStore, *, progress: bool) -> None:
    """Compare documents with the list of the bytes of msmarco-docs.tsv at which they begin.

    The list was published with the documents, so another one of either shows. As many of its
    documents may be missing as lines were passed over when the store was built.

    Raises:
        InputError: naming the line: a document that is not there or begins elsewhere, or the list
            has more or fewer documents.
    """
    mend = f"{DOCUMENTS_FILE} or {path.name} is cut or of another version; fetch both again"
    lines = track(
        read_lines(path),
        description=f"checking {path.name}",
        unit="document",
        enabled=progress,
        total=len(store),
    )
    may_be_missing = store.manifest.reached.malformed
    count = 0
    for number, line in lines:
        where = f"{path}:{number}"
        document_id, _, listed = _split(line, where, "id", "TREC offset", "TSV offset")
        if document_id not in store and may_be_missing:
            may_be_missing -= 1
            continue
        if document_id not in store:
            raise InputError(f"{where}: document {document_id!r} is not there; {mend}")
        offset = store.source_offset(document_id)
        if listed.strip() != str(offset):
            raise InputError(
                f"{where}: document {document_id!r} begins at byte {offset}, not {listed}; {mend}"
            )
        count += 1
    if count != len(store):
        raise InputError(f"{path}: lists {count} documents, {len(store)} are there; {mend}")


def _split(line: str, where: str, *columns: str) -> list[str]:
    """The columns of a line, of which the first is an id."""
    values = line.split("\t")
    if len(values) != len(columns):
        raise InputError(
            f"{where}: {len(values)} columns; {', '.join(columns)} with tabs between are needed"
        )
    check_id(values[0], f"{where}: id")
    return values


def _need(folder: Path, name: str) -> Path:
    path = find_file(folder, name)
    if path is None:
        raise InputError(f"{folder / name}: no such file, nor {name}.gz; it holds the documents")
    return path


def _make_source(
    folder: Path,
    layout: Layout,
    documents: LineSource,
    splits: dict[str, tuple[str, str]],
    *,
    document_text: DocumentText,
    lookup: Path | None = None,
) -> CollectionSource:
    """The documents with those splits of which the files are in the folder."""
    queries, qrels, notes = _find_splits(folder, splits)
    return CollectionSource(
        layout=layout,
        document_text=document_text,
        documents=documents,
        queries=partial(_read_queries, queries),
        qrels={split: partial(read_judgements, file) for split, file in qrels.items()},
        files=(documents.path, *queries, *qrels.values(), *([lookup] if lookup else [])),
        notes=notes,
        lookup=lookup,
    )


def _find_splits(
    folder: Path, splits: dict[str, tuple[str, str]]
) -> tuple[list[Path], dict[str, Path], tuple[str, ...]]:
    """Queries' files, split -> judgements' file, and notes on splits of which one is missing."""
    queries, qrels, notes = [], {}, []
    for split, names in splits.items():
        found = [find_file(folder, name) for name in names]
        if found[0] is not None and found[1] is not None:
            queries.append(found[0])
            qrels[split] = found[1]
        else:
            missing = [name for name, path in zip(names, found, strict=True) if path is None]
            notes.append(f"split {split} is left out: {' and '.join(missing)} not in {folder}")
    return queries, qrels, tuple(notes)


def _read_queries(paths: list[Path]) -> Iterator[Query]:
    for path in paths:
        yield from read_tsv_queries(path)
