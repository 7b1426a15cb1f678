r"""Scores from document states against full passes of the same trained model, on a whole run.

    python -m scripts.document_states.exactness --model MODEL --collection data/medquad \
      --run runs/medquad/bm25.dev.run --scratch /tmp/states --json exactness.json

All candidates of the run are scored by full passes, and from a store of states on disk in float32,
bfloat16 and int8, built and deleted one after the other. Queries drawn by chance, with so many
candidates that they make --pairs pairs, show that float32 states give the scores of the full pass
and the same ranking; beside them stands the full pass against itself in batches of another size,
which is what rounding alone does. Over all queries: RR@10 and nDCG@10 against the full pass, with
95% intervals of the paired difference (Student's t); the table says whether an interval stays
within the bound too.

Exit status: 0 all promises kept, 1 one is not.
"""

import argparse
import gc
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jaxrank.command_line import run
from jaxrank.data.collection import Collection
from jaxrank.errors import InputError
from jaxrank.evaluation.report import Report, compare_runs
from jaxrank.evaluation.runs import Run, ranking, read_run
from jaxrank.files import check_target
from jaxrank.progress import track
from jaxrank.ranking.reranking import rerank_run
from jaxrank.reranker import Reranker
from scripts.document_states.agreement import Agreement, compare_scores
from scripts.document_states.report import Promise, all_kept, markdown_table, write_report

MEASURES = ("RR@10", "nDCG@10")
DTYPES = ("float32", "bfloat16", "int8")
FULL, AGAIN = "full pass", "full pass, other batches"
OTHER_BATCH_SIZE = 13

MOST_SCORE_DIFFERENCE = 1e-4
"""Of float32 states."""
MOST_MEASURE_CHANGE = {"bfloat16": 0.002, "int8": 0.005}


def main() -> int:
    """Score, compare, print tables, write JSON."""
    options = _parse()
    check_target(options.json)
    collection = Collection.open(options.collection, progress=True)
    candidates = {
        query: {name: scores[name] for name in ranking(scores)[: options.depth]}
        for query, scores in read_run(options.run).items()
    }
    model = Reranker.from_pretrained(options.model)
    sample = draw_queries(candidates, options.pairs, options.seed)
    score = partial(_full_pass, model=model, collection=collection, options=options)
    runs = {FULL: score(candidates)}
    again = score({query: candidates[query] for query in sample}, batch_size=OTHER_BATCH_SIZE)
    stores = {}
    for dtype in options.dtypes:
        runs[dtype], stores[dtype] = score_from_states(
            dtype, model, candidates, collection, options
        )
        gc.collect()  # the deleted files are mapped until then, and take their place on the disk
    qrels = collection.qrels(options.split)
    report = compare_runs({query: qrels[query] for query in candidates}, runs, MEASURES)
    drawn = {name: {query: scored[query] for query in sample} for name, scored in runs.items()}
    agreements = {AGAIN: compare_scores(drawn[FULL], again)}
    agreements |= {name: compare_scores(drawn[FULL], drawn[name]) for name in options.dtypes}
    overall = {name: compare_scores(runs[FULL], runs[name]) for name in options.dtypes}
    print(f"\n{len(sample)} queries by chance:\n\n{agreement_table(agreements)}")
    print(f"\nall {len(candidates)} queries:\n\n{agreement_table(overall)}")
    print(f"\n{measure_table(report, stores)}\n")
    promises = make_promises(agreements, report)
    results = {
        "model": asdict(model.state_identity()),
        "sample": {name: asdict(agreement) for name, agreement in agreements.items()},
        "all": {name: asdict(agreement) for name, agreement in overall.items()},
        "measures": report.as_json(),
        "stores": stores,
    }
    kept = all_kept(promises)
    write_report(options.json, options, results, promises)
    return 0 if kept else 1


def draw_queries(candidates: Run, pairs: int, seed: int) -> list[str]:
    """Queries by chance until their candidates make `pairs`."""
    total = sum(map(len, candidates.values()))
    if not 1 <= pairs <= total:
        raise InputError(f"pairs: got {pairs}; the run has {total}")
    names = sorted(candidates)
    drawn: list[str] = []
    for place in np.random.default_rng(seed).permutation(len(names)):
        if pairs <= 0:
            break
        drawn.append(names[place])
        pairs -= len(candidates[names[place]])
    return sorted(drawn)


def score_from_states(
    dtype: Any,
    model: Reranker,
    candidates: Run,
    collection: Collection,
    options: argparse.Namespace,
) -> tuple[Run, dict[str, float]]:
    """Build a store of the candidates' states, score from it with verification on, delete it."""
    documents = dict.fromkeys(name for scores in candidates.values() for name in scores)
    folder: Path = options.scratch / f"exactness-{dtype}"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        states = model.encode_documents(
            {name: collection.documents[name] for name in documents},
            dtype=dtype, batch_size=options.batch_size, output=folder, show_progress_bar=True,
        )  # fmt: skip
        scorer = model.state_scorer()
        reranked: Run = {}
        for query, scores in track(
            candidates.items(), description=dtype, unit="query", enabled=True, total=len(candidates)
        ):
            names = list(scores)
            found = scorer.score(collection.queries[query], states, names)
            reranked[query] = dict(zip(names, map(float, found), strict=True))
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return reranked, {
        "documents": len(documents),
        "bytes_a_document": states.nbytes / len(documents),
        "disk_bytes_a_document": size / len(documents),
    }


def _full_pass(
    candidates: Run,
    *,
    model: Reranker,
    collection: Collection,
    options: argparse.Namespace,
    batch_size: int | None = None,
) -> Run:
    scorer = model.document_scorer(batch_size=batch_size or options.batch_size)
    return rerank_run(
        candidates,
        collection.queries,
        collection.documents,
        scorer.scores,
        run_name=str(options.run),
        collection_name=str(options.collection),
        progress=True,
    )


def agreement_table(agreements: Mapping[str, Agreement]) -> str:
    """Scores and rankings of each against the full pass."""
    header = ("against the full pass", "pairs", "largest difference", "mean difference",
              "same ranking", "scores of swapped ones apart by at most")  # fmt: skip
    rows = [
        (
            name, f"{one.pairs:,}", f"{one.largest_difference:.1e}", f"{one.mean_difference:.1e}",
            f"{one.same_rankings} of {one.queries}", f"{one.largest_swapped_gap:.1e}",
        )
        for name, one in agreements.items()
    ]  # fmt: skip
    return markdown_table(header, rows)


def measure_table(report: Report, stores: Mapping[str, Mapping[str, float]]) -> str:
    """Measures, their change with its interval, and bytes a document.

    The promise is on the change; whether its interval stays within the bound too is beside it.
    """
    header = ["states", "bytes a document"]
    for measure in MEASURES:
        header += [measure, "change", "95% interval", "interval within the bound"]
    rows = []
    for name, evaluation in report.evaluations.items():
        size = f"{stores[name]['bytes_a_document']:,.0f}" if name in stores else ""
        row = [name, size]
        for measure in MEASURES:
            test = report.tests.get(name, {}).get(measure)
            row.append(f"{evaluation.means[measure]:.4f}")
            row.append("" if test is None else f"{test.difference:+.5f}")
            interval = None if test is None else test.interval
            row.append("" if interval is None else " ".join(f"{end:+.5f}" for end in interval))
            row.append(_is_within(interval, MOST_MEASURE_CHANGE.get(name)))
        rows.append(row)
    return markdown_table(header, rows)


def _is_within(interval: tuple[float, float] | None, most: float | None) -> str:
    if interval is None or most is None:
        return ""
    return "yes" if max(map(abs, interval)) <= most else f"no, beyond {most:g}"


def make_promises(agreements: Mapping[str, Agreement], report: Report) -> list[Promise]:
    """The bounds on scores, rankings and measures."""
    exact = agreements["float32"]
    promises = [
        Promise("largest score difference, float32", exact.largest_difference,
                MOST_SCORE_DIFFERENCE),
        Promise("queries with another ranking, float32", exact.queries - exact.same_rankings, 0),
    ]  # fmt: skip
    promises += [
        Promise(f"change of {measure}, {dtype}", abs(report.tests[dtype][measure].difference), most)
        for dtype, most in MOST_MEASURE_CHANGE.items()
        if dtype in agreements
        for measure in MEASURES
    ]
    return promises


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True, help="TREC run with the candidates")
    parser.add_argument("--collection", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True, help="folder for the stores")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--split", default="dev")
    parser.add_argument(
        "--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES), help="float32 among them"
    )
    parser.add_argument("--pairs", type=int, default=2000, help="whose scores are compared")
    parser.add_argument("--depth", type=int, help="candidates of a query; default: all")
    parser.add_argument("--batch_size", type=int, default=32, help="of full passes and encoding")
    parser.add_argument("--seed", type=int, default=0, help="of the queries drawn")
    options = parser.parse_args()
    if "float32" not in options.dtypes:
        parser.error("--dtypes: float32 is needed, which is compared with the full pass")
    return options


if __name__ == "__main__":
    run(lambda: sys.exit(main()))
