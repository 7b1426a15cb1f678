r"""What a shorter max_length costs: documents cut, tokens lost, and nDCG@10 of one model.

    python scripts/truncation_report.py --model MODEL --collection data/medquad \
      --run runs/medquad/bm25.dev.run

Cuts are counted over all candidates of the run down to --depth. The model scores those of a sample
of the questions at each length; every length is tested against the longest (paired, Holm).
"""

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from jaxrank.command_line import run
from jaxrank.data.collection import Collection
from jaxrank.errors import InputError
from jaxrank.evaluation.report import Report, compare_runs
from jaxrank.evaluation.runs import Run, ranking, read_run, write_run
from jaxrank.evaluation.text_tables import comparison_table, render_table
from jaxrank.files import atomic_open, check_target
from jaxrank.progress import track
from jaxrank.ranking.reranking import rerank_run
from jaxrank.reranker import Reranker
from jaxrank.text.tokenize import PairTokenizer, TruncationCounts
from jaxrank.version import source_state

MEASURES = ("nDCG@10", "RR@10")
PAIRS_AT_ONCE = 4_096


def main() -> None:
    """Count and score at every length; print the tables, write runs and JSON."""
    options = _parse()
    check_target(options.json)
    lengths = sorted(set(options.lengths), reverse=True)
    collection = Collection.open(options.collection, progress=True)
    candidates = {
        query: {name: scores[name] for name in ranking(scores)[: options.depth]}
        for query, scores in read_run(options.run).items()
    }
    sample = sample_queries(candidates, options.queries, options.seed)
    qrels = collection.qrels(options.split)
    judged = {query: qrels[query] for query in sample}
    runs, counts = {}, {}
    for length in lengths:
        model = Reranker.from_pretrained(options.model, max_length=length)
        counts[length] = count_cuts(model, candidates, collection, f"cut at {length}")
        runs[f"{length} tokens"] = rerank_run(
            {query: candidates[query] for query in sample},
            collection.queries,
            collection.documents,
            model.document_scorer().scores,
            run_name=str(options.run),
            collection_name=str(options.collection),
            progress=True,
        )
        write_run(options.output / f"{length}.run", runs[f"{length} tokens"], tag=f"cut-{length}")
    report = compare_runs(judged, runs, MEASURES, correction="holm")
    pairs = sum(map(len, candidates.values()))
    print(f"{len(candidates)} questions, {pairs:,} candidates; measures over {len(sample)} of them")
    print(cut_table(counts), "", comparison_table(report), sep="\n")
    with atomic_open(options.json) as file:
        file.write(json.dumps(as_json(options, counts, report), indent=1) + "\n")
    print(f"wrote {options.json}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True, help="TREC run with the candidates")
    parser.add_argument("--collection", type=Path, default=Path("data/medquad"))
    parser.add_argument("--split", default="dev")
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 256, 512], help="tokens")
    parser.add_argument("--queries", type=int, default=150, help="that are scored, by chance")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--depth", type=int, default=20, help="candidates of a question")
    parser.add_argument("--output", type=Path, default=Path("runs/truncation"))
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/truncation.json"))
    return parser.parse_args()


def sample_queries(candidates: Run, queries: int, seed: int) -> list[str]:
    """Questions of the run by chance."""
    if not 1 <= queries <= len(candidates):
        raise InputError(f"queries: got {queries}; the run has {len(candidates)}")
    order = np.random.default_rng(seed).permutation(len(candidates))[:queries]
    names = sorted(candidates)
    return sorted(names[place] for place in order)


def count_cuts(
    model: Reranker, candidates: Run, collection: Collection, description: str
) -> TruncationCounts:
    """What tokenising all candidates cuts; nothing is scored."""
    tokenizer = PairTokenizer(model.tokenizer, model.text)
    pairs = [(query, document) for query in candidates for document in candidates[query]]
    texts = (
        (collection.queries[query], collection.documents[document])
        for query, document in track(
            pairs, description=description, unit="pair", enabled=True, total=len(pairs)
        )
    )
    for chunk in _chunks(texts):
        tokenizer.encode(chunk)
    return tokenizer.counts


def _chunks(texts: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    remaining = iter(texts)
    while chunk := list(islice(remaining, PAIRS_AT_ONCE)):
        yield chunk


def cut_table(counts: Mapping[int, TruncationCounts]) -> str:
    """What each length cuts."""
    rows = [
        (
            f"{length}",
            f"{count.truncated_documents / count.pairs:.1%}",
            f"{count.lost_document_tokens:,}",
            f"{count.lost_document_tokens / max(1, count.truncated_documents):,.0f}",
            f"{count.truncated_queries:,}",
        )
        for length, count in sorted(counts.items())
    ]
    header = ("max_length", "documents cut", "tokens lost", "of each cut one", "queries cut")
    return render_table(header, rows)


def as_json(
    options: argparse.Namespace, counts: Mapping[int, TruncationCounts], report: Report
) -> dict[str, Any]:
    """Settings, cuts and measures as plain values."""
    names = ("split", "queries", "seed", "depth")
    return {
        "settings": {
            "model": str(options.model),
            "collection": options.collection.name,
            **{name: getattr(options, name) for name in names},
        },
        "source": source_state(),
        "cuts": {str(length): asdict(count) for length, count in sorted(counts.items())},
        "measures": report.as_json(),
    }


if __name__ == "__main__":
    run(main)
