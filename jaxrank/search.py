"""python -m jaxrank.search: first-stage candidates for the questions of a split, as a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxrank.command_line import run
from jaxrank.data.document_text import DocumentText
from jaxrank.options import parse


@dataclass(frozen=True)
class SearchOptions:
    """Search a collection for every query that has judgements in a split."""

    collection: Path
    """Collection folder: documents, queries and qrels."""
    split: str
    """Whose queries are searched: those judged in qrels.SPLIT.txt or qrels/SPLIT.tsv."""
    output: Path
    """TREC run to write."""
    backend: Literal["bm25", "lucene"] = "bm25"
    """bm25, in memory, or, for millions, lucene on disk, from `bash scripts/setup.sh pyserini`."""
    index: str | None = None
    """For lucene: folder of the index, built if it is not there, or a prebuilt one's name, e.g.
    msmarco-v1-doc-slim, downloaded at first use. Null: lucene-index beside the output."""
    threads: int | None = None
    """For lucene: threads to index and search with. Null: one a core."""
    k1: float = 0.9
    """How slowly repeated words saturate; 0.9 is Anserini's default."""
    b: float = 0.4
    """How much long documents are held back, 0 to 1; 0.4 is Anserini's default."""
    depth: int = 100
    """Documents a query gets at most."""
    document_text: DocumentText | None = None
    """Which fields of a document are searched; null takes the collection's own choice."""


def main(argv: Sequence[str] | None = None) -> None:
    """Index the collection or open its index, search it, write the run."""
    options = parse(SearchOptions, "jaxrank.search", argv)
    from jaxrank.data.collection import Collection, check_outside
    from jaxrank.files import check_target
    from jaxrank.retrieval.searching import check_options, search_queries

    names = ("backend", "index", "threads", "depth", "k1", "b")
    engine = {name: getattr(options, name) for name in names}
    check_options(**engine)
    check_target(options.output)
    check_outside(options.output, options.collection)
    collection = Collection.open(
        options.collection, document_text=options.document_text, progress=True
    )
    queries = collection.split_queries(options.split)
    report = search_queries(collection, queries, options.output, **engine, progress=True)
    print("\n".join([*report.lines(), f"wrote {options.output}"]))


if __name__ == "__main__":
    run(main)
