"""BEIR's folders: corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv, each plain or gzip.

Judgements may also lie in qrels.SPLIT.txt, as in jaxrank's own folders.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from jaxrank.data.document_store.source import LineSource, SourceDocument
from jaxrank.data.documents import entry_fields
from jaxrank.data.importing.layouts.collection_source import (
    CollectionSource,
    Query,
    find_file,
    read_judgements,
)
from jaxrank.data.jsonl_entries import check_entry, parse_entry
from jaxrank.errors import InputError
from jaxrank.files import read_jsonl

CORPUS_FILE = "corpus.jsonl"

QUERIES_FILE = "queries.jsonl"


class CorpusLines(LineSource):
    """corpus.jsonl: {"_id", "text"}, and "title" and "url" where a document has them."""

    kind = CORPUS_FILE

    def parse_line(self, line: str, where: str) -> SourceDocument:
        """The document of a line."""
        entry = parse_entry(line.encode("utf-8"), where)
        return SourceDocument(entry["_id"], entry_fields(entry))


def beir(folder: Path) -> CollectionSource:
    """The collection of a BEIR folder.

    Raises:
        InputError: documents or queries are not there, or a split has two files of judgements.
    """
    paths = []
    for name in (CORPUS_FILE, QUERIES_FILE):
        path = find_file(folder, name)
        if path is None:
            raise InputError(
                f"{folder / name}: no such file, nor {name}.gz; BEIR's folders have it"
            )
        paths.append(path)
    qrels = _find_qrels(folder)
    return CollectionSource(
        layout="beir",
        document_text="title-body",
        documents=CorpusLines(paths[0]),
        queries=partial(_read_queries, paths[1]),
        qrels={split: partial(read_judgements, file) for split, file in qrels.items()},
        files=(*paths, *qrels.values()),
    )


def _find_qrels(folder: Path) -> dict[str, Path]:
    """Split -> file of judgements."""
    found: dict[str, Path] = {}
    for pattern, before, after in (("qrels.*.txt", "qrels.", ".txt"), ("qrels/*.tsv", "", ".tsv")):
        for path in sorted([*folder.glob(pattern), *folder.glob(f"{pattern}.gz")]):
            split = path.name.removesuffix(".gz").removeprefix(before).removesuffix(after)
            if split in found:
                raise InputError(f"{path}: split {split!r} is in {found[split]} too; keep one")
            found[split] = path
    return found


def _read_queries(path: Path) -> Iterator[Query]:
    for number, entry in read_jsonl(path):
        where = f"{path}:{number}"
        check_entry(entry, where)
        yield Query(entry["_id"], entry["text"], where)
