"""Check that a killed training goes on to the same bits, and measure what the same bits cost.

Every training is a process of its own, since XLA reads its flags once and chooses kernels anew in
each process; that is what could make the bits differ. Needs orbax-checkpoint besides.

    python -m scripts.gpu_check.resume FOLDER PRESET LENGTH [--deterministic] [--checkpoints]
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import jax
import numpy as np

from jaxrank.training.determinism import make_deterministic
from scripts.gpu_check.rows import Row, Sizes

STEPS, CHECKPOINT_STEP = 24, 6
TIMEOUT_S = 600
TOY = "bert-tiny"


def check_resume(sizes: Sizes) -> Iterator[Row]:
    """Train undisturbed, and killed after a checkpoint; compare all bits of the final states."""
    if find_spec("orbax.checkpoint") is None:
        yield Row("resume", "kill and resume", ok=None, note="needs orbax-checkpoint")
        return
    preset = TOY if sizes.is_toy else "bert-base"
    length = min(sizes.length, 256)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        whole, again, default, default_again = (
            run_child(folder / name, preset, length, *options)
            for name, options in (
                ("whole", ("--deterministic",)),
                ("again", ("--deterministic",)),
                ("default", ()),
                ("default-again", ()),
            )
        )
        kill_child(folder / "killed", preset, length)
        killed = run_child(folder / "killed", preset, length, "--deterministic", "--checkpoints")
    case = f"{preset}, {STEPS} steps"
    yield Row(
        "resume",
        f"{case}, killed after step {CHECKPOINT_STEP}",
        ok=killed["digest"] == whole["digest"] and killed["first_step"] >= CHECKPOINT_STEP,
        measured={"first_step": killed["first_step"]},
        note="all bits of the final state as undisturbed, deterministic",
    )
    yield Row(
        "resume",
        f"{case}, two processes",
        ok=again["digest"] == whole["digest"],
        measured={"same_bits_by_default": float(default["digest"] == default_again["digest"])},
        note="the same bits, deterministic",
    )
    yield Row(
        "resume",
        f"{case}, cost",
        measured={
            "ms": default["ms"],
            "deterministic_ms": whole["ms"],
            "ratio": whole["ms"] / default["ms"],
        },
        note="a step, by default and deterministic",
    )


def start_child(folder: Path, *arguments: object) -> "subprocess.Popen[str]":
    """A training in a process of its own."""
    command = [sys.executable, "-m", "scripts.gpu_check.resume", str(folder)]
    environment = dict(os.environ)
    # The checking process holds most of the device's memory.
    environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    if jax.default_backend() == "cpu":
        environment["JAX_PLATFORMS"] = "cpu"
    return subprocess.Popen(
        [*command, *map(str, arguments)], env=environment, stdout=subprocess.PIPE, text=True
    )


def run_child(folder: Path, *arguments: object) -> dict:
    """What a whole training has to say."""
    process = start_child(folder, *arguments)
    said, _ = process.communicate(timeout=TIMEOUT_S)
    if process.returncode:
        raise RuntimeError(f"the training in {folder.name} ended with {process.returncode}")
    return dict(json.loads(said.splitlines()[-1]))


def kill_child(folder: Path, preset: str, length: int) -> None:
    """Start a training and kill it as soon as it has a checkpoint."""
    process = start_child(folder, preset, length, "--deterministic", "--checkpoints", "--endless")
    deadline_s = time.monotonic() + TIMEOUT_S
    while not list(folder.glob("checkpoints/step-*")):
        if process.poll() is not None or time.monotonic() > deadline_s:
            raise RuntimeError("the training to be killed made no checkpoint")
        time.sleep(0.05)
    process.kill()
    process.communicate()


def main() -> None:
    """Train on fixed batches, from the newest checkpoint if there is one; print what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("preset")
    parser.add_argument("length", type=int)
    parser.add_argument("--deterministic", action="store_true")
    parser.add_argument("--checkpoints", action="store_true")
    parser.add_argument("--endless", action="store_true", help="wait to be killed")
    options = parser.parse_args()
    if options.deterministic:
        make_deterministic(options.folder)

    from jaxrank.training.checkpoint import Checkpoints
    from scripts.gpu_check.training import make_batch, make_training

    state, step, vocab_size = make_training(
        "bert", options.preset, total_steps=STEPS, is_toy=options.preset == TOY
    )
    batches = [make_batch(vocab_size, options.length, seed) for seed in range(STEPS)]
    times_s = []
    checkpoints = Checkpoints(options.folder / "checkpoints", keep=1, say=print)
    if options.checkpoints and (restored := checkpoints.restore(state)) is not None:
        state = restored.state
    first_step = int(state.step)
    with checkpoints:
        for number in range(first_step, STEPS):
            start_s = time.perf_counter()
            state, metrics = step(state, batches[number])
            metrics["loss"].block_until_ready()
            times_s.append(time.perf_counter() - start_s)
            if options.checkpoints and number + 1 == CHECKPOINT_STEP:
                checkpoints.save(number + 1, state, {})
            if options.endless and number + 1 > CHECKPOINT_STEP:
                time.sleep(TIMEOUT_S)
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves((state.parameters, state.optimizer_state)):
        digest.update(np.asarray(leaf).tobytes())
    result = {
        "digest": digest.hexdigest(),
        "ms": 1e3 * float(np.median(times_s[2:])),
        "first_step": first_step,
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
