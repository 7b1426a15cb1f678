"""Lucene and the embedded BM25 side by side: measures, overlap of the top 10, times.

    .venv/bin/python scripts/first_stages.py --collection DIR --split dev [--threads N]

With Anserini's default parameters and those of RankMamba. Lucene's index is built once and serves
both, the embedded one is built for each. Java's start and opening the index count as search time.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from jaxrank.command_line import run
from jaxrank.data.collection import Collection
from jaxrank.evaluation.measures import evaluate_run
from jaxrank.evaluation.runs import Run, ranking
from jaxrank.files import atomic_open
from jaxrank.retrieval.bm25 import Bm25
from jaxrank.retrieval.lucene import Lucene
from jaxrank.retrieval.lucene_index import build_index

PARAMETERS = ((0.9, 0.4), (4.46, 0.82))
MEASURES = ("RR@10", "nDCG@10")
DEPTH = 100


def overlap(one: Run, other: Run, depth: int = 10) -> float:
    """Mean share of documents that the two have in common among the best `depth` of a query."""
    shares = []
    for query_id in one.keys() | other.keys():
        best = [set(ranking(r.get(query_id, {}))[:depth]) for r in (one, other)]
        shares.append(len(best[0] & best[1]) / max(len(best[0]), len(best[1]), 1))
    return sum(shares) / len(shares)


def same_first(one: Run, other: Run) -> float:
    """Share of queries whose best document is the same."""
    common = one.keys() & other.keys()
    return sum(ranking(one[q])[0] == ranking(other[q])[0] for q in common) / len(common)


def compare(collection: Collection, split: str, threads: int) -> list[dict[str, Any]]:
    """One row for each engine and choice of parameters."""
    queries, qrels = collection.split_queries(split), collection.qrels(split)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        begin = perf_counter()
        build_index(collection, Path(folder) / "index", threads=threads)
        lucene_index_s = perf_counter() - begin
        for k1, b in PARAMETERS:
            begin = perf_counter()
            embedded = Bm25.build(collection.documents, k1=k1, b=b)
            built = perf_counter()
            runs = {"bm25": embedded.search(queries, depth=DEPTH)}
            found = perf_counter()
            lucene = Lucene(Path(folder) / "index", k1=k1, b=b, threads=threads)
            runs["lucene"] = lucene.search(queries, depth=DEPTH)
            end = perf_counter()
            times = {
                "bm25": (built - begin, found - built),
                "lucene": (lucene_index_s, end - found),
            }
            for name, results in runs.items():
                row = {"engine": name, "k1": k1, "b": b}
                row |= evaluate_run(qrels, results, list(MEASURES)).means
                row |= {"overlap": overlap(*runs.values()), "first": same_first(*runs.values())}
                row |= {"index_s": times[name][0], "search_s": times[name][1]}
                rows.append(row)
    return rows


def table(rows: list[dict[str, Any]], queries: int) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| Engine | k1 | b | RR@10 | nDCG@10 | top 10 in common | same first | index | search |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['engine']} | {row['k1']} | {row['b']} | {row['RR@10']:.4f} | {row['nDCG@10']:.4f} "
        f"| {row['overlap']:.1%} | {row['first']:.1%} | {row['index_s']:.1f} s "
        f"| {row['search_s']:.1f} s ({queries / row['search_s']:,.0f} queries/s) |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Compare the engines and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--collection", type=Path, required=True)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of Lucene")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    options = parser.parse_args()
    collection = Collection.open(options.collection)
    rows = compare(collection, options.split, options.threads)
    queries = len(collection.split_queries(options.split))
    print(f"{len(collection.documents)} documents, {queries} queries, {options.threads} threads\n")
    print(table(rows, queries))
    if options.json:
        with atomic_open(options.json) as file:
            file.write(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    run(main)
