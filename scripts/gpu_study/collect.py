"""From the parts' scores to runs, and from runs to a table with intervals. Needs no GPU.

    bash scripts/gpu_study.sh collect --data DIR [--json benchmarks/results/gpu_study.json]

A model's value for a question is its mean over the seeds; intervals and tests are over questions.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from jaxrank.command_line import run
from jaxrank.errors import InputError
from jaxrank.evaluation.measures import evaluate_run
from jaxrank.evaluation.qrels import read_qrels
from jaxrank.evaluation.runs import Run, ranking, read_run, write_run
from jaxrank.evaluation.significance import mean_interval, paired_test
from scripts.gpu_study.archive import CANDIDATES, QRELS, read_study, write_json
from scripts.gpu_study.models import FROM_RANDOM, MINILM, WORDINGS
from scripts.gpu_study.tables import cost_table, quality_table
from scripts.packed import unpack

MEASURES = ("RR@10", "nDCG@10")
BASELINE = "bert"
"""What the other models from a random start are tested against."""

PerQuery = dict[str, dict[str, float]]


def main() -> None:
    """Write a run a part and the JSON, print the tables."""
    parser = argparse.ArgumentParser(
        prog="gpu_study.sh collect", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that `prepare` wrote")
    parser.add_argument("--results", type=Path, help="where the JSONs are; default: DATA/results")
    parser.add_argument("--packed", type=Path, metavar="FILE", help="take them from there first")
    parser.add_argument("--json", type=Path, help="default: DATA/study-results.json")
    options = parser.parse_args()
    results: Path = options.results or options.data / "results"
    if options.packed is not None:
        unpack(options.packed, results)
    summary = collect(options.data, results)
    path = options.json or options.data / "study-results.json"
    write_json(path, summary)
    print("\n".join([*quality_table(summary), "", *cost_table(summary)]))
    print(f"\nwrote {path}")


def collect(data: Path, results: Path) -> dict[str, Any]:
    """What the parts that are there show; their runs are written beside the results.

    Raises:
        InputError: no part is there, or one of another folder.
    """
    study = read_study(data)
    found = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))
    ]
    if not found:
        raise InputError(f"{results}: no results; run `bash scripts/gpu_study.sh --data {data}`")
    settings = found[0]["settings"]
    for part in found:
        if part["settings"] != settings or part["settings"]["files"] != study["files"]:
            raise InputError(
                f"{results}: {part['part']} was made with other settings or from another folder "
                f"than {found[0]['part']}; keep those that belong together"
            )
    candidates = read_run(data / CANDIDATES)
    qrels = read_qrels(data / QRELS)

    def values(one: Run) -> PerQuery:
        return evaluate_run(qrels, one, MEASURES).per_query

    of_part: dict[str, PerQuery] = {}
    for part in found:
        scored = as_run(part["scores"], list(qrels), candidates)
        name = part["part"].replace(":", "-")
        write_run(results / f"{name}.run", scored, tag=name)
        of_part[part["part"]] = values(scored)
    models = {}
    for name in WORDINGS:
        seeds = [part for part in found if part["part"].split(":")[0] == name]
        if seeds:
            models[name] = {
                **_cost(seeds),
                "quality": _quality([of_part[s["part"]] for s in seeds]),
            }
    return {
        "queries": len(qrels),
        "settings": settings,
        "machine": found[0]["machine"],
        "bm25": _quality([values(candidates)]),
        "models": models,
        "tests": _tests({name: _mean(of_part, name) for name in models}, values(candidates)),
    }


def as_run(scores: list[list[float]], queries: list[str], candidates: Run) -> Run:
    """Scores by query and document; `queries` as in the qrels, documents in BM25's order."""
    if len(scores) != len(queries):
        raise InputError(f"scores of {len(scores)} queries; {len(queries)} are needed")
    made: Run = {}
    for query, values in zip(queries, scores, strict=True):
        documents = ranking(candidates.get(query, {}))
        if documents:
            made[query] = dict(zip(documents, values, strict=True))
    return made


def _mean(of_part: Mapping[str, PerQuery], name: str) -> PerQuery:
    """Mean over a model's seeds, question by question."""
    seeds = [values for part, values in of_part.items() if part.split(":")[0] == name]
    return {
        measure: {
            query: float(np.mean([values[measure][query] for values in seeds]))
            for query in seeds[0][measure]
        }
        for measure in MEASURES
    }


def _quality(seeds: list[PerQuery]) -> dict[str, Any]:
    """Mean, 95% interval over questions, and the means of the single seeds."""
    result = {}
    for measure in MEASURES:
        table = np.array([list(values[measure].values()) for values in seeds])
        of_query = table.mean(axis=0)
        result[measure] = {
            "mean": float(of_query.mean()),
            "interval": mean_interval(of_query.tolist()),
            "seeds": table.mean(axis=1).tolist(),
        }
    return result


def _cost(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """What training took: medians over the seeds."""
    names = (
        "parameters", "parameters_without_embeddings", "steps", "pairs", "tokens", "wall_clock_s",
        "compile_s", "training_s", "pairs_per_s", "scoring_pairs_per_s", "memory_mib",
    )  # fmt: skip
    cost: dict[str, Any] = {"seeds": [int(part["part"].split(":")[1]) for part in seeds]}
    for name in names:
        values = [part[name] for part in seeds]
        cost[name] = None if None in values else float(np.median(values))
    cost["final_loss"] = [part["losses"][-1][1] for part in seeds]
    cost["skipped_steps"] = [part["skipped_steps"] for part in seeds]
    return cost


def _tests(models: Mapping[str, PerQuery], bm25: PerQuery) -> list[dict[str, Any]]:
    """Paired tests: MiniLM against BM25, the others against BERT."""
    tests = []
    for name, values in models.items():
        baseline = "bm25" if name in (MINILM, BASELINE) else BASELINE
        against = bm25 if baseline == "bm25" else models.get(baseline)
        if against is not None and name in (MINILM, *FROM_RANDOM):
            tests += [
                {
                    "model": name,
                    "baseline": baseline,
                    "measure": measure,
                    **asdict(paired_test(values[measure], against[measure])),
                }
                for measure in MEASURES
            ]
    return tests


if __name__ == "__main__":
    run(main)
