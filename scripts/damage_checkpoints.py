"""Damages every file of a checkpoint, and fills a disk; called by kill_and_resume.py."""

import argparse
import errno
import os
import random
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import numpy as np
from interrupted_run import compare, finish, read_checkpoint, restored_step, start

from jaxrank.options import parse
from jaxrank.training.checkpoint import Checkpoints, find_checkpoints
from jaxrank.training.config import Recipe
from jaxrank.training.optimizer import make_optimizer
from jaxrank.training.state_arrays import state_arrays
from jaxrank.training.step import init_state
from jaxrank.training_run.start import load_start


def damage_everything(recipe: Path, run: Path) -> dict[str, Any]:
    """Damage each file of the newest checkpoint of a run and try to restore it."""
    options = parse(Recipe, "jaxrank.train", ["--config", str(recipe)])
    module = load_start(options).module
    optimizer, _ = make_optimizer(options.optimizer, options.training.steps or 1)
    folder = run / "checkpoints"
    newest, older = (f"step-{step:06d}" for step in find_checkpoints(folder)[:2])
    expected, _ = read_checkpoint(folder / older)

    def restore() -> str:
        """Name of the checkpoint that comes back, if it is what was saved under it."""
        _, state = init_state(module, optimizer, key=jax.random.key(0))
        restored = Checkpoints(folder, keep=2, say=lambda line: None).restore(state)
        if restored is None:
            return "nothing"
        if restored.folder.name == newest:
            return "the damaged one"
        arrays = state_arrays(restored.state)
        is_right = all(np.array(arrays[n]).tobytes() == expected[n].tobytes() for n in expected)
        return "the one before" if is_right else "something else"

    moments = random.Random(0)
    results: dict[str, Counter[str]] = {kind: Counter() for kind in ("flip", "cut", "remove")}
    files = sorted(path for path in (folder / newest).rglob("*") if path.is_file())
    for path in files:
        content = path.read_bytes()
        for kind, counts in results.items():
            for _ in range(5 if kind == "flip" else 1):
                if kind == "remove":
                    path.unlink()
                else:
                    path.write_bytes(damaged(content, kind, moments))
                counts[restore()] += 1
                path.write_bytes(content)
    outcomes = {kind: dict(counts) for kind, counts in results.items()}
    failures = [kind for kind, counts in results.items() if set(counts) != {"the one before"}]
    return {"files": len(files), "restored": outcomes, "failures": failures}


def damaged(content: bytes, kind: str, moments: random.Random) -> bytes:
    """With one bit flipped, or cut at a random place."""
    place = moments.randrange(len(content))
    if kind == "cut":
        return content[:place]
    changed = bytearray(content)
    changed[place] ^= 1 << moments.randrange(8)
    return bytes(changed)


def fill_disk(recipe: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train on a disk that some checkpoints fill, then on one that is large enough."""
    disk = options.output / "disk"
    disk.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=120m", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode != 0:
        return {"skipped": "mounting a tmpfs needs root"}
    try:
        folder = disk / "run"
        status, output = finish(start(recipe, folder, "--checkpoint.keep", 1000))
        last_line = output.rstrip().rpartition("\n")[2].rpartition("\r")[2]
        kept = sorted(path.name for path in (folder / "checkpoints").glob("*"))
        subprocess.run(["mount", "-o", "remount,size=600m", str(disk)], check=True)
        again, continued = finish(start(recipe, folder, "--checkpoint.keep", 2))
        differences = compare(options.output / "undisturbed", folder)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)
    failures = []
    if status != 2 or os.strerror(errno.ENOSPC) not in last_line or "Traceback" in output:
        failures.append(f"status {status}: {output[-500:]}")
    if again != 0 or restored_step(continued) != int(kept[-1][5:]):
        failures.append(f"status {again}: {continued[-500:]}")
    return {
        "said": last_line,
        "checkpoints kept": len(kept),
        "went on from step": restored_step(continued),
        "failures": failures,
        "differences": differences,
    }
