"""Shows that a training goes on after any interruption as if there had been none.

    python scripts/kill_and_resume.py --output /tmp/kills --json /tmp/kills.json

It trains a small random model on real questions: once undisturbed, once with SIGKILLs at random
moments, of which some during the start and some while a checkpoint is being written, once with
SIGTERMs. The three must end with the same bits: models of all milestones, optimizer state, every
logged loss and dev measure, and no step may be in the log twice. Then it damages every file of a
checkpoint in every way (`--skip damage` leaves that out), and fills a disk (as root, a real tmpfs;
`--skip full_disk`).
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from interrupted_run import (
    ROOT,
    compare,
    finish,
    last_step,
    read_metrics,
    restored_step,
    start,
    wait_until,
)

sys.path.insert(0, str(ROOT))  # the sources beside this script, wherever it is called from
from damage_checkpoints import damage_everything, fill_disk

from jaxrank.files import atomic_open

EXIT_STOPPED = 75


def main() -> None:
    """Run all parts, print a table, exit with 1 if anything differs."""
    options = parse_options()
    options.output.mkdir(parents=True, exist_ok=True)
    recipe = prepare(options)
    report: dict[str, Any] = {"steps": options.steps, "checkpoint_every": options.every}
    start_s = time.perf_counter()
    whole = run_folder(options, "undisturbed")
    status, output = finish(start(recipe, whole))
    assert status == 0, output
    report["undisturbed"] = {"seconds": round(time.perf_counter() - start_s, 1)}
    times_s = [line["time_s"] for line in read_metrics(whole) if "loss" in line]
    duration_s = times_s[-1] - times_s[0]
    startup_s = report["undisturbed"]["seconds"] - duration_s
    if "kills" not in options.skip:
        killed = run_folder(options, "killed")
        report["killed"] = kill_often(recipe, killed, options, duration_s, startup_s)
        report["killed"]["differences"] = compare(whole, killed)
    if "terms" not in options.skip:
        stopped = run_folder(options, "stopped")
        report["stopped"] = stop_often(recipe, stopped, options, duration_s)
        report["stopped"]["differences"] = compare(whole, stopped)
    if "damage" not in options.skip:
        report["damage"] = damage_everything(recipe, whole)
    if "full_disk" not in options.skip:
        report["full_disk"] = fill_disk(recipe, options)
    for name, values in report.items():
        print(f"{name}: {json.dumps(values)}")
    if options.json is not None:
        with atomic_open(options.json) as file:
            file.write(json.dumps(report, indent=1) + "\n")
    parts = [part for part in report.values() if isinstance(part, dict)]
    sys.exit(any(part.get("differences") or part.get("failures") for part in parts))


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for runs; emptied")
    parser.add_argument("--data", type=Path, default=ROOT / "examples" / "medquad-mini")
    parser.add_argument("--family", default="bert")
    parser.add_argument("--preset", default="bert-tiny")
    parser.add_argument(
        "--tokenizer", default=str(ROOT / "tests" / "data" / "tokenizers" / "bert-base-uncased")
    )
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--every", type=int, default=4, help="steps between two checkpoints")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--terms", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", type=Path, help="file for the report")
    parser.add_argument(
        "--skip", nargs="*", default=[], choices=["kills", "terms", "damage", "full_disk"]
    )
    return parser.parse_args()


def prepare(options: argparse.Namespace) -> Path:
    """Candidates, groups and the recipe."""
    runs = {split: options.output / f"bm25.{split}.run" for split in ("train", "dev")}
    for split, path in runs.items():
        arguments = ["--collection", options.data, "--split", split, "--output", path]
        call("jaxrank.search", *arguments)
    groups = options.output / "groups.jsonl"
    if not groups.exists():
        arguments = ["--collection", options.data, "--split", "train", "--run", runs["train"]]
        call("jaxrank.mine", *arguments, "--negatives", 8, "--output", groups)
    recipe = {
        "model": {
            "family": options.family,
            "preset": options.preset,
            "tokenizer": options.tokenizer,
        },
        "text": {"max_length": 64},
        "data": {
            "collection": str(options.data),
            "groups": str(groups),
            "negatives": 3,
            "groups_per_batch": 4,
        },
        "dev": {"run": str(runs["dev"]), "depth": 10, "queries": 10},
        "optimizer": {"learning_rate": 1e-3, "warmup_fraction": 0.1},
        "checkpoint": {"every": options.every},
        "training": {
            "output": "replaced",
            "steps": options.steps,
            "milestones": 5,
            "log_every": 1,
        },
    }
    path: Path = options.output / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def call(module: str, *arguments: object) -> None:
    """Run one of our commands to its end."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def run_folder(options: argparse.Namespace, name: str) -> Path:
    """An empty place for a run."""
    folder: Path = options.output / name
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def kill_often(
    recipe: Path, folder: Path, options: argparse.Namespace, duration_s: float, startup_s: float
) -> dict[str, Any]:
    """SIGKILL the training again and again, then let it finish."""
    moments = random.Random(options.seed)
    kinds: Counter[str] = Counter()
    unfinished, restored = 0, []
    for number in range(options.kills):
        process = start(recipe, folder)
        before = last_step(folder)
        if number % 5 == 4:
            kind = "start"
            # The first start, which was timed, compiled everything; later ones take less.
            time.sleep(moments.uniform(0, startup_s / 4))
        else:
            wait_until(lambda before=before: last_step(folder) > before, process)
            # Half of what an even spread would be, so that the last kill comes before the end.
            time.sleep(moments.uniform(0, duration_s / options.kills / 2))
            kind = "save" if number % 5 in (1, 3) else "any moment"
            if kind == "save":
                wait_until(lambda: any(folder.glob("checkpoints/.step-*.part")), process)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        _, output = finish(process)
        kinds[kind] += 1
        unfinished += any(folder.glob("checkpoints/.step-*.part"))
        restored.append(restored_step(output))
    status, output = finish(start(recipe, folder))
    restored.append(restored_step(output))
    failures = [] if status == 0 else [output]
    if sum(kinds.values()) < options.kills:
        failures.append("the training ended before all the kills: more --steps are needed")
    return {
        "kills": sum(kinds.values()),
        "aimed at": dict(kinds),
        "left a checkpoint half written": unfinished,
        "went on from steps": restored,
        "failures": failures,
    }


def stop_often(
    recipe: Path, folder: Path, options: argparse.Namespace, duration_s: float
) -> dict[str, Any]:
    """SIGTERM the training some times, then let it finish; no step may be lost by it."""
    moments = random.Random(options.seed)
    failures, seconds = [], []
    for _ in range(options.terms):
        process = start(recipe, folder)
        before = last_step(folder)
        wait_until(lambda before=before: last_step(folder) > before, process)
        time.sleep(moments.uniform(0, duration_s / (options.terms + 1)))
        sent_s = time.perf_counter()
        process.send_signal(signal.SIGTERM)
        status, output = finish(process)
        seconds.append(round(time.perf_counter() - sent_s, 2))
        newest = max(folder.glob("checkpoints/step-*")).name
        if status != EXIT_STOPPED or int(newest[5:]) < last_step(folder):
            failures.append(f"status {status}, newest {newest}: {output[-300:]}")
    status, output = finish(start(recipe, folder))
    if status != 0:
        failures.append(output)
    return {"SIGTERMs": options.terms, "seconds to stop": seconds, "failures": failures}


if __name__ == "__main__":
    main()
