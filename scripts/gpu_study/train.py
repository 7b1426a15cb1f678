"""Train and score the study's parts, one process each; parts that are done are kept.

    bash scripts/gpu_study.sh --data DIR [--part mamba:0 ...] [--epochs 4] [--cpu]

A part is a model and a seed. Its result is one JSON, so an interrupted study goes on where it was.
With --packed FILE all results are in that one file too, after each part; what FILE has at the start
is not done again.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax

from jaxrank.command_line import run
from jaxrank.errors import InputError
from scripts.gpu_study.archive import Archive
from scripts.gpu_study.models import FROM_RANDOM, MINILM, WORDINGS, count_parameters, study_model
from scripts.gpu_study.settings import Settings, add_settings, settings_arguments, settings_of
from scripts.packed import pack, unpack

SEEDS = 3
TO_START_S = 30.0
"""For a part's process beside what it may train and score."""


def main() -> None:
    """Run the parts that are asked for and not there yet; say what came of each."""
    options = _parse()
    # The parts' processes use the GPU; this one would only hold its memory.
    jax.config.update("jax_platforms", "cpu")
    settings = settings_of(options)
    archive = Archive.open(options.data)
    folder: Path = options.results or options.data / "results"
    for name in dict.fromkeys(part.split(":")[0] for part in options.part):
        total, rest = count_parameters(study_model(name, archive.study, is_toy=options.cpu).config)
        print(f"{name}: {total:,} parameters, {rest:,} without embeddings", flush=True)
    if options.packed is not None and options.packed.exists():
        unpack(options.packed, folder)
    failed = []
    end_s = time.monotonic() + 60 * options.total_minutes
    for part in options.part:
        path = folder / f"{part.replace(':', '-')}.json"
        if path.exists():
            _check_settings(path, settings, archive)
            print(f"kept: {path}", flush=True)
        else:
            left_s = end_s - time.monotonic()
            obstacle = _run_part(options, part, path, left_s=left_s)
            if obstacle:
                print(f"{part}: {obstacle}", flush=True)
                failed.append(part)
                continue
            if options.packed is not None:
                pack(folder, options.packed)
        print(_describe(path), flush=True)
    if failed:
        raise InputError(f"not done: {' '.join(failed)}; the same command goes on with them")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="gpu_study.sh", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that `prepare` wrote")
    parser.add_argument("--results", type=Path, help="where JSONs go; default: DATA/results")
    parser.add_argument("--packed", type=Path, metavar="FILE", help="all results in one file")
    parser.add_argument(
        "--total-minutes", type=float, default=float("inf"), help="end after so many, all in all"
    )
    every = [f"{MINILM}:0", *(f"{name}:{seed}" for seed in range(SEEDS) for name in FROM_RANDOM)]
    parser.add_argument(
        "--part", nargs="+", default=every, metavar="MODEL:SEED", type=_part,
        help=f"default: {' '.join(every)}",
    )  # fmt: skip
    add_settings(parser)
    return parser.parse_args()


def _part(text: str) -> str:
    name, _, seed = text.partition(":")
    if name not in WORDINGS or not seed.isdigit():
        raise argparse.ArgumentTypeError(
            f"{text!r}: a model ({', '.join(WORDINGS)}), a colon and a seed are needed"
        )
    return text


def _run_part(options: argparse.Namespace, part: str, path: Path, *, left_s: float) -> str:
    """Train a part in a process of its own; returns why it could not be done, or nothing.

    A process that hangs or dies is ended, and the next part has its turn.
    """
    limit_s = min(60 * options.minutes + TO_START_S, left_s)
    if limit_s < TO_START_S:
        return "no time is left"
    start = time.monotonic()
    command = [sys.executable, "-m", "scripts.gpu_study.part", str(options.data), part, str(path)]
    try:
        done = subprocess.run([*command, *settings_arguments(options)], timeout=limit_s)
    except subprocess.TimeoutExpired:
        return f"not done in {limit_s:.0f} s, and ended"
    if done.returncode:
        return f"ended with status {done.returncode}; its output is above"
    print(f"{part}: {time.monotonic() - start:.0f} s with its process", flush=True)
    return ""


def _check_settings(path: Path, settings: Settings, archive: Archive) -> None:
    """Refuse a result that other settings or another folder made."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["settings"]
    wanted = settings.as_json(archive)
    different = [name for name in wanted if found.get(name) != wanted[name]]
    if different:
        raise InputError(
            f"{path}: made with other {', '.join(different)}; give another --results, or remove it"
        )


def _describe(path: Path) -> str:
    result = json.loads(path.read_text(encoding="utf-8"))
    memory = result["memory_mib"]
    return (
        f"{result['part']}: loss {result['losses'][0][1]:.3f} to {result['losses'][-1][1]:.3f}, "
        f"{result['pairs_per_s']:,.0f} pairs/s, {result['wall_clock_s']:.0f} s of which "
        f"{result['compile_s']:.0f} s to compile, "
        f"{'memory unknown' if memory is None else f'{memory:,.0f} MiB'}"
    )


if __name__ == "__main__":
    run(main)
