"""Do in-batch negatives pay at equal time? A small Mamba with and without them, on all dev queries.

    python scripts/in_batch_study.py --minutes 7 --collection data/medquad \
        --groups runs/medquad/groups.jsonl --dev_run runs/medquad/bm25.dev.run

The seconds of a step of both recipes are measured first, or given; each is then trained for as many
steps as take the same time, from each seed's equal start; what the clock said of each, compiling
included, stands below the table. Every step is a command whose result is kept, so a study that was
ended goes on where it was; the table shows what is there.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from jaxrank.command_line import run
from jaxrank.data.collection import find_qrels
from jaxrank.errors import InputError
from jaxrank.evaluation.measures import evaluate_run
from jaxrank.evaluation.qrels import read_qrels
from jaxrank.evaluation.runs import read_run
from jaxrank.evaluation.significance import paired_test
from jaxrank.files import atomic_open, read_json
from jaxrank.training.metrics import read_metrics
from jaxrank.version import source_state

ROOT = Path(__file__).resolve().parents[1]
RECIPES = {"plain": "false", "in_batch": "true"}
MEASURES = ("RR@10", "nDCG@10")
LINES_TO_LEAVE_OUT = 2  # of the log, in which most is compiled
LOSS_OVER = {"plain": "loss_over_own_group", "in_batch": "loss_over_batch"}
"""What each recipe's loss is named in the result: over more documents it is larger by itself."""
EQUAL_WITHIN = 0.05
"""Of the time of a plain run: what counts as equal."""


def main() -> None:
    """Make what is not there yet, then print the table and write the JSON."""
    options = _parse()
    if not options.report_only:
        steps = _plan(options)
        for seed in range(options.seeds):
            for recipe in RECIPES:
                _train(options, recipe, seed, steps[recipe])
                _report(options)
    _report(options)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, required=True, help="of training, each run")
    parser.add_argument("--config", type=Path, default=ROOT / "configs/medquad-mamba-small.yaml")
    parser.add_argument("--collection", type=Path, default=Path("data/medquad"))
    parser.add_argument("--groups", type=Path, default=Path("runs/medquad/groups.jsonl"))
    parser.add_argument("--dev_run", type=Path, default=Path("runs/medquad/bm25.dev.run"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--depth", type=int, default=50, help="candidates of a dev query")
    parser.add_argument(
        "--step_seconds",
        nargs=2,
        type=float,
        metavar=("PLAIN", "IN_BATCH"),
        help="of a step of each recipe; default: measured",
    )
    parser.add_argument("--measured_steps", type=int, default=60, help="steps to measure, of each")
    parser.add_argument("--output", type=Path, default=Path("runs/in-batch-study"))
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/in_batch_study.json"))
    parser.add_argument("--table", type=Path, default=Path("benchmarks/results/in_batch_study.md"))
    parser.add_argument(
        "--report_only", action="store_true", help="run nothing, show what is there"
    )
    parser.add_argument(
        "training", nargs="*", help="behind --: options of jaxrank.train for all runs"
    )
    options = parser.parse_args()
    # Commands run in the project's folder, wherever this script was called.
    for name in ("config", "collection", "groups", "dev_run", "output", "json", "table"):
        setattr(options, name, getattr(options, name).absolute())
    return options


def _plan(options: argparse.Namespace) -> dict[str, int]:
    """Steps of each recipe that take the same time; kept, as a study that goes on has no others."""
    path = options.output / "plan.json"
    settings = {
        "minutes": options.minutes,
        "config": options.config.name,
        "collection": options.collection.name,
        "depth": options.depth,
        "training": options.training,
    }
    if path.exists():
        plan = read_json(path)
        if plan["settings"] != settings:
            raise InputError(f"{path}: made with other settings; give another --output")
    else:
        seconds = dict(zip(RECIPES, options.step_seconds or _measure(options), strict=True))
        steps = {name: max(1, round(60 * options.minutes / seconds[name])) for name in RECIPES}
        plan = {"settings": settings, "step_seconds": seconds, "steps": steps}
        with atomic_open(path) as file:
            file.write(json.dumps(plan, indent=1) + "\n")
    print(f"plan: {json.dumps(plan)}", flush=True)
    steps = plan["steps"]
    return {name: steps[name] for name in RECIPES}


def _measure(options: argparse.Namespace) -> list[float]:
    """Seconds of a step of each recipe: the median over parts of a short run."""
    every = max(1, options.measured_steps // 12)
    found = []
    for name in RECIPES:
        folder = options.output / f"measured-{name}"
        _run_training(
            options, folder, name, 0, options.measured_steps, "--training.log_every", every
        )
        lines = read_metrics(folder)[LINES_TO_LEAVE_OUT:]
        found.append(
            statistics.median(
                (later["time_s"] - line["time_s"]) / (later["step"] - line["step"])
                for line, later in pairwise(lines)
            )
        )
    return found


def _train(options: argparse.Namespace, recipe: str, seed: int, steps: int) -> None:
    """Train a model and rerank the dev queries' candidates with it."""
    folder = options.output / f"{recipe}-{seed}"
    _run_training(options, folder, recipe, seed, steps)
    result = _dev_run(options, recipe, seed)
    _make(
        result, "jaxrank.rerank", "--model", folder / "model", "--collection", options.collection,
        "--run", options.dev_run, "--depth", options.depth, "--output", result,
    )  # fmt: skip


def _run_training(
    options: argparse.Namespace, folder: Path, recipe: str, seed: int, steps: int, *more: object
) -> None:
    """A run of that length, which is not measured on the way."""
    _make(
        folder / "model", "jaxrank.train", "--config", options.config,
        "--data.collection", options.collection, "--data.groups", options.groups,
        "--dev.run", "null", "--training.milestones", 1, "--training.output", folder,
        "--loss.in_batch_negatives", RECIPES[recipe], "--training.steps", steps,
        "--model.seed", seed, "--training.seed", seed, *more, *options.training,
    )  # fmt: skip


def _make(result: Path, module: str, *arguments: object) -> None:
    """Run a command unless its result is there; commands write their results in one piece."""
    if result.exists():
        print(f"kept: {result}", flush=True)
        return
    command = [sys.executable, "-m", module, *map(str, arguments)]
    print("$", " ".join(command[1:]), flush=True)
    done = subprocess.run(command, cwd=ROOT)
    if done.returncode:
        raise InputError(f"{module}: ended with status {done.returncode}; its output is above")


def _dev_run(options: argparse.Namespace, recipe: str, seed: int) -> Path:
    path: Path = options.output / f"{recipe}-{seed}.dev.run"
    return path


def _report(options: argparse.Namespace) -> None:
    """Evaluate what is there, print the table and write it."""
    qrels_path = find_qrels(options.collection, "dev")
    if qrels_path is None:
        raise InputError(f"{options.collection}: no qrels of split dev")
    qrels = read_qrels(qrels_path)
    first_stage = evaluate_run(qrels, read_run(options.dev_run), list(MEASURES)).per_query
    seeds: list[dict[str, Any]] = []
    values: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        if not all(_dev_run(options, recipe, seed).exists() for recipe in RECIPES):
            break
        of_recipes = {}
        for recipe in RECIPES:
            reranked = read_run(_dev_run(options, recipe, seed))
            of_recipes[recipe] = evaluate_run(qrels, reranked, list(MEASURES)).per_query
        values.append(of_recipes)
        seeds.append({"seed": seed, "trained": _trained(options, seed)})
    result = {
        **read_json(options.output / "plan.json"),
        "source": source_state(),
        "queries": len(qrels),
        "first_stage": {name: _mean(first_stage[name]) for name in MEASURES},
        "seeds": [about | compare([found]) for about, found in zip(seeds, values, strict=True)],
        "all": compare(values) if values else {},
    }
    with atomic_open(options.json) as file:
        file.write(json.dumps(result, indent=1) + "\n")
    text = "\n".join(make_table(result))
    with atomic_open(options.table) as file:
        file.write(text + "\n")
    print(f"{text}\nwrote {options.json} and {options.table}", flush=True)


def _trained(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """What each run's training took: the clock's seconds, compiling included, and its last loss."""
    lines = {name: read_metrics(options.output / f"{name}-{seed}")[-1] for name in RECIPES}
    return {
        recipe: {
            "step": line["step"],
            "time_s": line["time_s"],
            LOSS_OVER[recipe]: line["loss"],
        }
        for recipe, line in lines.items()
    }


def compare(values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means of both recipes and the paired test, of each query's mean over the seeds.

    Args:
        values: of each seed, recipe -> measure -> query id -> value.
    """
    compared: dict[str, Any] = {}
    for measure in MEASURES:
        of_queries = {
            recipe: {
                query: statistics.fmean(seed[recipe][measure][query] for seed in values)
                for query in values[0][recipe][measure]
            }
            for recipe in RECIPES
        }
        means = {recipe: _mean(found) for recipe, found in of_queries.items()}
        test = paired_test(of_queries["in_batch"], of_queries["plain"])
        compared[measure] = means | asdict(test)
    return compared


def _mean(values: Mapping[str, float]) -> float:
    return statistics.fmean(values.values())


def make_table(result: Mapping[str, Any]) -> list[str]:
    """The result as a Markdown table: a row a seed and measure, the mean over seeds last."""
    lines = [
        "| Seed | Measure | plain | in-batch | difference (95%) | p (t-test) | wins/ties/losses |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    rows = [(str(found["seed"]), found) for found in result["seeds"]]
    if result["all"]:
        rows.append((f"mean of {len(rows)}", result["all"]))
    for name, found in rows:
        for measure in MEASURES:
            of = found[measure]
            low, high = of["interval"] or (of["difference"],) * 2
            cells = [
                name,
                measure,
                f"{of['plain']:.3f}",
                f"{of['in_batch']:.3f}",
                f"{of['difference']:+.3f} ({low:+.3f} to {high:+.3f})",
                f"{of['p_t_test']:.3f}",
                f"{of['wins']}/{of['ties']}/{of['losses']}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", *describe_clocks(result["seeds"])]


def describe_clocks(seeds: Sequence[Mapping[str, Any]]) -> list[str]:
    """What each seed's two runs took, and what to do where that is not the same time."""
    lines, shares = [], []
    for found in seeds:
        plain, in_batch = (found["trained"][recipe]["time_s"] for recipe in RECIPES)
        shares.append(in_batch / plain - 1)
        lines.append(
            f"Seed {found['seed']}: trained for {plain:,.0f} s plain, {in_batch:,.0f} s in-batch "
            f"({shares[-1]:+.1%}), compiling included."
        )
    worst = max(shares, key=abs, default=0.0)
    if abs(worst) > EQUAL_WITHIN:
        lines.append(
            f"NOT at equal time: {worst:+.1%}, {EQUAL_WITHIN:.0%} counts as equal. A new study "
            "needs --step_seconds from these clocks and steps."
        )
    return lines


if __name__ == "__main__":
    run(main)
