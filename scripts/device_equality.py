"""The same training on one device, on several, and in several processes: how far the results agree.

    .venv/bin/python scripts/device_equality.py [--steps 50] [-- --data.packing true ...]

A small BERT is trained by `python -m jaxrank.train` on questions of examples/medquad-mini, always
with another number of processes and devices (of the CPU's own making), dropout included. The losses
of all steps, the scores of the final models on pairs of dev queries and the final parameters are
compared with those of one device; scores up to the score bias, which is the same for all pairs and
changes no ranking. Then the checkpoint that two processes made half-way is gone on with by one
process on one device. What stands after `--` goes to every training. Exit status 1 if anything
differs by more than promised.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from jaxrank.data.collection import Collection
from jaxrank.files import atomic_open

ROOT = Path(__file__).resolve().parents[1]
COLLECTION = ROOT / "examples" / "medquad-mini"
TOKENIZER = ROOT / "tests" / "data" / "tokenizers" / "bert-base-uncased"

LOSSES, SCORES, PARAMETERS = 1e-5, 1e-4, 1e-4
EXEMPT = ("attention.key.bias", "head.score.bias")
"""Their gradients are zero but for rounding, which Adam scales up to whole steps: a softmax is the
same whatever is added to all of its inputs."""

NEGATIVES, GROUPS = 3, 64
MODEL = {
    "num_layers": 2,
    "hidden_size": 128,
    "num_heads": 2,
    "intermediate_size": 256,
}


class Case(NamedTuple):
    """One way to run the training."""

    processes: int
    devices: int
    """Of each process."""
    fsdp: int = 1

    @property
    def name(self) -> str:
        """For the table and for folders."""
        return f"{self.processes}x{self.devices}-fsdp{self.fsdp}"


REFERENCE = Case(1, 1)
CASES = (Case(1, 4), Case(1, 4, 2), Case(1, 4, 4), Case(2, 2), Case(2, 2, 2), Case(2, 2, 4))


class Result(NamedTuple):
    """What a training left."""

    losses: list[float]
    scores: np.ndarray
    parameters: Mapping[str, np.ndarray]


def main() -> int:
    """Train in all ways, print the table, return the exit status."""
    arguments, more = _split(sys.argv[1:])
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--folder", type=Path, help="where runs stay; else they are removed")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        config = write_recipe(folder, steps=options.steps, more=more)
        train(config, folder / "reference", REFERENCE)
        wanted = read_result(folder / "reference")
        print(f"{options.steps} steps, losses {wanted.losses[0]:.4f} to {wanted.losses[-1]:.4f}")
        print("| processes x devices | fsdp | losses | scores | parameters | exempt | s |")
        print("|---|---|---|---|---|---|---|")
        is_well = True
        for case in CASES:
            start_s = time.perf_counter()
            train(config, folder / case.name, case)
            duration_s = time.perf_counter() - start_s
            is_well &= print_row(case, read_result(folder / case.name), wanted, duration_s)
        name = f"{CASES[-1].name}-then-1x1"
        start_s = time.perf_counter()
        copy_half(folder / CASES[-1].name, folder / name)
        print("its checkpoint half-way, gone on with by 1 process on 1 device:")
        train(config, folder / name, REFERENCE)
        duration_s = time.perf_counter() - start_s
        is_well &= print_row(REFERENCE, read_result(folder / name), wanted, duration_s)
    return 0 if is_well else 1


def write_recipe(folder: Path, *, steps: int, more: Sequence[str] = ()) -> Path:
    """Write groups of medquad-mini and a recipe for them; arguments go in by way of a file."""
    folder.mkdir(parents=True, exist_ok=True)
    collection = Collection.open(COLLECTION, progress=False)
    documents = sorted(collection.documents)
    random = np.random.default_rng(0)
    lines = []
    for query_id, judged in list(collection.qrels("train").items())[:GROUPS]:
        positive_id = max(judged, key=lambda id: judged[id])
        drawn = random.choice(len(documents), size=NEGATIVES + 1, replace=False)
        others = [documents[place] for place in drawn if documents[place] != positive_id]
        group = {"query_id": query_id, "positive_id": positive_id}
        lines.append(json.dumps({**group, "negative_ids": others[:NEGATIVES]}) + "\n")
    (folder / "groups.jsonl").write_text("".join(lines), encoding="utf-8")
    recipe = {
        "model": {
            "family": "bert",
            "preset": "minilm-l6",
            "overrides": MODEL,
            "tokenizer": str(TOKENIZER),
        },
        "text": {"template": "pair", "max_length": 48},
        "data": {
            "collection": str(COLLECTION),
            "groups": str(folder / "groups.jsonl"),
            "negatives": NEGATIVES,
            "groups_per_batch": 8,
        },
        "optimizer": {"learning_rate": 1e-3, "warmup_fraction": 0.1},
        "checkpoint": {"every": steps // 2},
        "training": {"output": "unset", "steps": steps, "milestones": 1, "log_every": 1},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    (folder / "more.json").write_text(json.dumps(list(more)), encoding="utf-8")
    return path


def train(config: Path, output: Path, case: Case) -> None:
    """Train with so many processes and devices; a failed one shows what it said."""
    running = start_training(config, output, case)
    said = [process.communicate()[0] for process in running]
    for process, text in zip(running, said, strict=True):
        if process.returncode:
            raise SystemExit(f"{case.name} ended with status {process.returncode}:\n{text}")


def start_training(config: Path, output: Path, case: Case) -> list["subprocess.Popen[str]"]:
    """The processes of a training, started."""
    more = json.loads((config.parent / "more.json").read_text(encoding="utf-8"))
    command = [sys.executable, "-m", "jaxrank.train", "--config", str(config)]
    command += ["--training.output", str(output), "--devices.fsdp", str(case.fsdp), *more]
    environment = dict(os.environ)
    environment |= {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={case.devices}",
        "PYTHONPATH": str(ROOT),
    }
    if case.processes > 1:
        environment |= {
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}",
            "JAX_NUM_PROCESSES": str(case.processes),
        }
    return [
        subprocess.Popen(
            command,
            env=environment | ({"JAX_PROCESS_ID": str(index)} if case.processes > 1 else {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(case.processes)
    ]


def free_port() -> int:
    """A port on which nothing listens just now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def read_result(output: Path) -> Result:
    """Losses, parameters, and the scores of the model on the candidates of dev queries."""
    from ckpt_convert.load import load
    from jaxrank.reranker import Reranker
    from jaxrank.training.metrics import read_metrics

    losses = [line["loss"] for line in read_metrics(output) if "loss" in line]
    collection = Collection.open(COLLECTION, progress=False)
    documents = sorted(collection.documents)
    pairs = [
        (collection.queries[query_id], collection.documents[documents[(7 * place) % 2000]])
        for place, query_id in enumerate(sorted(collection.qrels("dev"))[:200])
    ]
    scores = Reranker.from_pretrained(str(output / "model")).predict(pairs)
    return Result(losses, scores, load(output / "model").parameters)


def print_row(case: Case, got: Result, wanted: Result, duration_s: float) -> bool:
    """Print the largest differences; whether they are as small as promised."""
    losses = max(abs(a - b) for a, b in zip(got.losses, wanted.losses, strict=True))
    bias = "head.score.bias"
    shift = got.parameters[bias] - wanted.parameters[bias]
    scores = float(np.abs(got.scores - shift - wanted.scores).max())
    differences = {
        name: float(np.abs(value - wanted.parameters[name]).max())
        for name, value in got.parameters.items()
    }
    exempt = max(value for name, value in differences.items() if name.endswith(EXEMPT))
    others = max(value for name, value in differences.items() if not name.endswith(EXEMPT))
    print(
        f"| {case.processes} x {case.devices} | {case.fsdp} | {losses:.1e} | {scores:.1e} | "
        f"{others:.1e} | {exempt:.1e} | {duration_s:.0f} |",
        flush=True,
    )
    return losses <= LOSSES and scores <= SCORES and others <= PARAMETERS


def copy_half(finished: Path, output: Path) -> None:
    """A copy of a run as it was at its checkpoint half-way, when it was interrupted."""
    shutil.copytree(finished, output)
    shutil.rmtree(output / "model")
    newest = max((output / "checkpoints").glob("step-*"))
    shutil.rmtree(newest)
    about = json.loads((output / "run.json").read_text(encoding="utf-8"))
    about["status"] = "running"
    with atomic_open(output / "run.json") as file:
        json.dump(about, file)


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """What stands before and after the first `--`."""
    if "--" not in arguments:
        return arguments, []
    place = arguments.index("--")
    return arguments[:place], arguments[place + 1 :]


if __name__ == "__main__":
    sys.exit(main())
