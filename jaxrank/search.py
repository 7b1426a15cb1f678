"""python -m jaxrank.search: first-stage candidates for the questions of a split, as a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Literal

from jaxrank.command_line import run
from jaxrank.options import parse


@dataclass(frozen=True)
class SearchOptions:
    """Search a collection for every query that has judgements in a split."""

    collection: Path
    """Collection folder with corpus.jsonl, queries.jsonl and qrels."""
    split: str
    """Whose queries are searched: those judged in qrels.SPLIT.txt or qrels/SPLIT.tsv."""
    output: Path
    """TREC run to write."""
    k1: float = 0.9
    """How slowly repeated words saturate; 0.9 is Anserini's default."""
    b: float = 0.4
    """How much long documents are held back, 0 to 1; 0.4 is Anserini's default."""
    depth: int = 100
    """Documents a query gets at most."""
    backend: Literal["bm25"] = "bm25"
    """Engine: bm25 is embedded and needs nothing else."""


def main(argv: Sequence[str] | None = None) -> None:
    """Index the collection, search it, write the run."""
    options = parse(SearchOptions, "jaxrank.search", argv)
    from jaxrank.data.collection import Collection
    from jaxrank.evaluation.runs import write_run
    from jaxrank.files import check_target
    from jaxrank.retrieval.bm25 import Bm25

    check_target(options.output)
    collection = Collection.open(options.collection, progress=True)
    queries = collection.split_queries(options.split)
    begin = perf_counter()
    index = Bm25.build(collection.documents, k1=options.k1, b=options.b, progress=True)
    found = index.search(queries, depth=options.depth, progress=True)
    seconds = perf_counter() - begin
    write_run(options.output, found, tag=options.backend)
    print(f"{len(collection.documents)} documents, {len(queries)} queries in {seconds:.1f} s")
    if unmatched := len(queries) - len(found):
        print(f"{unmatched} queries share no word with any document and are not in the run")
    print(f"wrote {options.output}")


if __name__ == "__main__":
    run(main)
