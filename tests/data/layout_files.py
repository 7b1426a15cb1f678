"""Official files in miniature, and what a layout reads from them."""

import gzip
from pathlib import Path

from jaxrank.data.document_text import DocumentFields
from jaxrank.data.importing.layouts.collection_source import CollectionSource

DOCUMENT_FILES = {
    "msmarco-docs.tsv": b"D1\thttp://one\tOne\tfirst body\nD2\t\t\tsecond\n",
    "msmarco-doctrain-queries.tsv": b"1\tfirst?\n2\tsecond?\n",
    "msmarco-doctrain-qrels.tsv": b"1 0 D1 1\n2 0 D2 1\n",
    "msmarco-docdev-queries.tsv": b"2\tsecond?\r\n3\tthird?\r\n",
    "msmarco-docdev-qrels.tsv": b"3\t0\tD2\t1\t\r\n",
    "msmarco-test2019-queries.tsv": b"4\tfourth?\n5\tnot judged\n",
    "2019qrels-docs.txt": b"4 Q0 D1 3\n4 Q0 D2 0\n",
    "msmarco-test2020-queries.tsv": b"6\tsixth?\n",
    "2020qrels-docs.txt": b"6 0 D2 -1\n",
}


def write_files(folder: Path, files: dict[str, bytes], *, packed: bool = False) -> Path:
    """Write files by name, plain or gzip; the folder."""
    for name, content in files.items():
        path = folder / (f"{name}.gz" if packed else name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content) if packed else content)
    return folder


def documents(source: CollectionSource) -> dict[str, DocumentFields]:
    """All documents of a source."""
    parsed = [source.documents.parse(record, "here") for record in source.documents.records()]
    return {entry.document_id: entry.fields for entry in parsed if entry is not None}


def splits(source: CollectionSource) -> dict[str, dict[str, dict[str, int]]]:
    """The judgements of each split."""
    return {split: read().qrels for split, read in source.qrels.items()}
