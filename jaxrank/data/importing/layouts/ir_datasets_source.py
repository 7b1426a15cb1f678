"""Collections by their id in the package ir_datasets, which fetches and reads their files."""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from jaxrank.data.document_store.source import DocumentSource, SourceDocument
from jaxrank.data.document_text import DocumentFields, DocumentText
from jaxrank.data.importing.layouts.collection_source import CollectionSource, Judgements, Query
from jaxrank.data.jsonl_entries import check_id, is_unicode
from jaxrank.errors import InputError
from jaxrank.evaluation.qrels import Qrels

PREFIX = "ir_datasets:"

# Names of splits as in MS MARCO's own layouts, from what follows the documents' id. Passages have a
# dev and a dev/small, which are different queries: each keeps its name.
_SPLIT_NAMES = {
    "trec-dl-2019": "dl19",
    "trec-dl-2019-judged": "dl19",
    "trec-dl-2020": "dl20",
    "trec-dl-2020-judged": "dl20",
}
_BODY_FIELDS = ("body", "text")


class IrDocuments(DocumentSource):
    """The documents of a dataset; records are JSON lists of id, url, title and body."""

    def __init__(self, dataset: Any, name: str) -> None:
        self.name = f"{PREFIX}{name}"
        self.kind = self.name
        self._dataset = dataset
        names = set(dataset.docs_cls()._fields)
        self._body = next((field for field in _BODY_FIELDS if field in names), None)
        # Without a body of its own, a document is what the package calls its text, with the title.
        self.fields = tuple(field for field in ("url", "title") if field in names and self._body)

    @property
    def document_text(self) -> DocumentText:
        """All fields that the documents have."""
        if "title" not in self.fields:
            return "body"
        return "url-title-body" if "url" in self.fields else "title-body"

    def describe(self) -> str:
        """Which of the dataset's fields are taken."""
        body = self._body or "default_text()"
        return f"{self.name}: fields {', '.join([*self.fields, body])}"

    def records(self) -> Iterator[bytes]:
        """Each document as JSON."""
        for document in self._dataset.docs_iter():
            body = getattr(document, self._body) if self._body else document.default_text()
            url, title = (
                getattr(document, field) if field in self.fields else ""
                for field in ("url", "title")
            )
            yield json.dumps([document.doc_id, url or "", title or "", body or ""]).encode()

    def parse(self, record: bytes, where: str) -> SourceDocument:
        """The document of a record."""
        document_id, url, title, body = json.loads(record)
        check_id(document_id, f"{where}: id")
        if not all(is_unicode(text) for text in (url, title, body)):
            raise InputError(f"{where}: half of a surrogate pair; it is no Unicode text")
        return SourceDocument(document_id, DocumentFields(body, title, url))


def ir_datasets_source(names: Sequence[str]) -> CollectionSource:
    """The documents that the datasets share, and a split of each that has queries and judgements.

    Args:
        names: ids, such as msmarco-document/dev.

    Raises:
        InputError: the package is not installed, an unknown id, or ids of different documents.
    """
    try:
        import ir_datasets
    except ImportError:
        raise InputError(
            f"{PREFIX}{names[0]}: ir_datasets is not installed; pip install 'jaxrank[ir-datasets]'"
        ) from None
    datasets = {name: _load(ir_datasets, name) for name in names}
    parents = {ir_datasets.docs_parent_id(name) for name in names}
    if len(parents) > 1:
        raise InputError(
            f"{PREFIX}{','.join(names)}: of different documents ({', '.join(sorted(parents))}); "
            "import them into a folder each"
        )
    parent = parents.pop()
    documents = IrDocuments(datasets[names[0]], parent)
    splits: dict[str, Any] = {}
    notes = [documents.describe()]
    for name, dataset in datasets.items():
        if not (dataset.has_queries() and dataset.has_qrels()):
            notes.append(f"{PREFIX}{name} has no queries with judgements, hence no split")
            continue
        split = _split_name(name, parent)
        if split in splits:
            raise InputError(f"{PREFIX}{name}: another id gives the split {split!r} too; keep one")
        splits[split] = dataset
    return CollectionSource(
        layout="ir-datasets",
        document_text=documents.document_text,
        documents=documents,
        queries=partial(_read_queries, splits),
        qrels={split: partial(_read_qrels, dataset, split) for split, dataset in splits.items()},
        datasets=tuple(names),
        notes=tuple(notes),
    )


def _load(package: Any, name: str) -> Any:
    try:
        dataset = package.load(name)
    except KeyError:
        raise InputError(
            f"{PREFIX}{name}: ir_datasets knows no such id; its catalog is https://ir-datasets.com"
        ) from None
    if not dataset.has_docs():
        raise InputError(f"{PREFIX}{name}: has no documents")
    return dataset


def _split_name(name: str, parent: str) -> str:
    """What follows the documents' id, or `test` where nothing does."""
    rest = name.removeprefix(parent).strip("/").replace("/", "-")
    return _SPLIT_NAMES.get(rest, rest) or "test"


def _read_queries(splits: dict[str, Any]) -> Iterator[Query]:
    for split, dataset in splits.items():
        for query in dataset.queries_iter():
            where = f"split {split}, query {query.query_id!r}"
            check_id(query.query_id, where)
            yield Query(query.query_id, query.default_text(), where)


def _read_qrels(dataset: Any, split: str) -> Judgements:
    qrels: Qrels = {}
    repeated = 0
    for judgement in dataset.qrels_iter():
        judged = qrels.setdefault(judgement.query_id, {})
        repeated += judgement.doc_id in judged
        grade = judged.setdefault(judgement.doc_id, judgement.relevance)
        if grade != judgement.relevance:
            raise InputError(
                f"split {split}: query {judgement.query_id!r} and document {judgement.doc_id!r} "
                f"are judged {grade} and {judgement.relevance}; one grade is needed"
            )
    return Judgements(qrels, repeated)
