"""A training in a process of its own, and whether two of them ended with the same bits."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from orbax.checkpoint import StandardCheckpointer

ROOT = Path(__file__).resolve().parents[1]

# What a line of metrics says about speed differs from run to run.
COMPARED = ("loss", "gradient_norm", "group_accuracy", "score_spread", "learning_rate", "skipped")


def start(recipe: Path, folder: Path, *arguments: object) -> subprocess.Popen[str]:
    """Start a training, or go on with it."""
    command = [sys.executable, "-m", "jaxrank.train", "--config", str(recipe)]
    command += ["--training.output", str(folder), *map(str, arguments)]
    environment = os.environ | {"JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", "cpu")}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for it; its status and what it said."""
    output, _ = process.communicate(timeout=1800)
    return process.returncode, output


def wait_until(is_met: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Look often, since a checkpoint is written in a tenth of a second."""
    while not is_met() and process.poll() is None:
        time.sleep(0.005)


def last_step(folder: Path) -> int:
    """The last step in the log, 0 before the first."""
    path = folder / "metrics.jsonl"
    # The end is enough, and cheap to read often.
    end = path.read_bytes()[-2000:].rpartition(b"\n")[0] if path.exists() else b""
    return json.loads(end.rpartition(b"\n")[2])["step"] if end else 0


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The complete lines of the log."""
    path = folder / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def restored_step(output: str) -> int | None:
    """The step that a training says it goes on from."""
    _, found, rest = output.partition("goes on from step ")
    return int(rest.split()[0]) if found else None


def compare(whole: Path, other: Path) -> list[str]:
    """What is not the same to the last bit."""
    differences = []
    if any(kind == "repeated" for kind in check_log(other)):
        differences.append("metrics.jsonl: a step is there twice")
    lines, others = compared_lines(whole), compared_lines(other)
    if lines != others:
        differences.append("metrics.jsonl: losses, dev measures or their order")
    for folder in ("model", "milestones"):
        if digests(whole / folder) != digests(other / folder):
            differences.append(folder)
    newest = max((whole / "checkpoints").glob("step-*")).name
    arrays, progress = read_checkpoint(whole / "checkpoints" / newest)
    other_arrays, other_progress = read_checkpoint(other / "checkpoints" / newest)
    if arrays.keys() != other_arrays.keys():
        differences.append("names of the last checkpoint's arrays")
    for name in arrays.keys() & other_arrays.keys():
        if arrays[name].tobytes() != other_arrays[name].tobytes():
            differences.append(f"{newest}: {name}")
    for name in ("batches", "best"):
        if progress[name] != other_progress[name]:
            differences.append(f"{newest}: {name}")
    return differences


def check_log(folder: Path) -> list[str]:
    """`repeated` for every step whose loss is in the log more than once."""
    counts = Counter(line["step"] for line in read_metrics(folder) if "loss" in line)
    return ["repeated" for count in counts.values() if count > 1]


def compared_lines(folder: Path) -> list[dict[str, Any]]:
    """The log without what is measured by a clock."""
    names = ("step", *COMPARED)
    return [
        {
            name: value
            for name, value in line.items()
            if name in names or name.startswith(("dev/", "first_stage/"))
        }
        for line in read_metrics(folder)
    ]


def digests(folder: Path) -> dict[str, str]:
    """Path -> SHA-256 of the weights below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.safetensors"))
    }


def read_checkpoint(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays by name, and the progress, as they are on disk."""
    arrays = StandardCheckpointer().restore((folder / "state").absolute())
    progress = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
    return {name: np.asarray(value) for name, value in arrays.items()}, progress
