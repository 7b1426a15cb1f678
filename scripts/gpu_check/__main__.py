"""Checks the project on a GPU and measures it: what `scripts/gpu_check.sh` runs.

Every check of `checks.CHECKS` runs in a process of its own: one that hangs or dies is a failed row,
and the others run. If it was the Mosaic kernels' own, the later ones keep off those kernels and say
so, since a kernel that hangs once hangs again. A row says what was compared, the largest error and
what is allowed, or what was measured. Correctness is computed with "highest" matrix products, since
a GPU's float32 default is TF32; speed with the defaults. Inputs are drawn from a new seed each
time; the seed is printed.

Needs jax, flax, optax, numpy and jaxtyping alone; the check named resume orbax-checkpoint too, and
those of document states transformers. Exit status: 0 all is well, 1 a check failed, 2 there is no
GPU or an option is wrong, 3 nothing failed and some had no time, or nothing could be checked.
"""

import argparse
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.gpu_check.checks import CHECKS, CORRECTNESS
from scripts.gpu_check.processes import NO_TIME, Ended, run_apart
from scripts.gpu_check.results import Results
from scripts.gpu_check.rows import Row, format_row
from scripts.gpu_check.worker import END, MACHINE

ROOT = Path(__file__).resolve().parents[2]
ON_GPU, ON_CPU = "benchmarks/results/gpu_check.json", "build/gpu_check_cpu.json"
"""Where results go unless told; toys are nothing to keep."""
SLOWER_ON_CPU = 5.0
"""How much longer a check may be silent there."""


@dataclass(frozen=True)
class Runner:
    """How the checks' processes are started."""

    folder: Path
    """For what they write."""
    seed: int
    is_cpu: bool
    without_mosaic: bool = False
    """Keep off the Mosaic kernels from the start."""
    deadline_s: float = float("inf")
    """Of `time.monotonic()`, after which nothing runs."""

    def start(self, name: str, *, without_mosaic: bool = False) -> Ended:
        """Run a check, or describe the machine."""
        check = CHECKS.get(name)
        file = self.folder / f"{name}.jsonl"
        command = [sys.executable, "-m", "scripts.gpu_check.worker", name, str(file)]
        command += ["--seed", str(self.seed)]
        command += ["--cpu"] * self.is_cpu + ["--without-mosaic"] * without_mosaic
        environment = {"PYTHONPATH": os.pathsep.join([str(ROOT), *_python_path()])}
        if check is not None and check.is_beside_pytorch:
            environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        silence_s = 120.0 if check is None else check.silence_s
        return run_apart(
            command, file, end=END, deadline_s=self.deadline_s, environment=environment,
            silence_s=silence_s * (SLOWER_ON_CPU if self.is_cpu else 1.0),
        )  # fmt: skip


def run_checks(
    names: Sequence[str], runner: Runner, results: Results | None = None
) -> dict[str, list[Row]]:
    """Run the checks one after the other; a process that did not end by itself is a failed row.

    Args:
        results: where each check's rows are written as soon as it ends.
    """
    done: dict[str, list[Row]] = {}
    without_mosaic = runner.without_mosaic
    for name in names:
        begin_s = time.monotonic()
        is_late = begin_s > runner.deadline_s
        ended = Ended([], NO_TIME, is_late=True) if is_late else runner.start(
            name, without_mosaic=without_mosaic
        )  # fmt: skip
        rows = [Row(**value) for value in ended.values]
        if ended.obstacle:
            rows.append(Row(name, "all", None if ended.is_late else False, note=ended.obstacle))
            print(format_row(rows[-1]), flush=True)
            print("".join(f"    {line}\n" for line in ended.obstacle.splitlines()[1:]), end="")
            without_mosaic |= CHECKS[name].runs_mosaic and not ended.is_late
        seconds = time.monotonic() - begin_s
        print(f"  {name}: {seconds:.1f} s", flush=True)
        done[name] = rows
        # What an earlier run has measured is worth more than that there was no time now.
        if results is not None and not (ended.is_late and (is_late or results.has(name))):
            results.add(name, rows, seed=runner.seed, seconds=seconds)
    return done


def main() -> int:
    """Run the chosen checks, print the table, write the JSON; return the exit status."""
    # Whoever ends this process ends the check with it: `run_apart` sees to it on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    options = _parse()
    begin_s = time.monotonic()
    minutes = options.minutes or (float("inf") if options.cpu else 9.0)
    with tempfile.TemporaryDirectory(prefix="gpu_check-") as folder:
        deadline_s = begin_s + 60 * minutes
        runner = Runner(Path(folder), options.seed, options.cpu, options.without_mosaic, deadline_s)
        described = runner.start(MACHINE)
        if described.obstacle:
            print(f"error: jax cannot start; {described.obstacle}", file=sys.stderr)
            return 2
        machine: dict[str, Any] = described.values[0]
        if not options.cpu and machine["backend"] != "gpu":
            print(
                f"error: jax sees no GPU (backend {machine['backend']!r}); install jax[cuda13], "
                "or pass --cpu for a toy run",
                file=sys.stderr,
            )
            return 2
        path = options.json or ROOT / (ON_CPU if options.cpu else ON_GPU)
        results = Results(path, machine, keep=options.only is not None, say=print)
        names = options.only or (CORRECTNESS if options.skip_benchmarks else list(CHECKS))
        again = f"--seed {options.seed}"
        print(f"{machine['device']}, jax {machine['versions']['jax']}, {again}", flush=True)
        done = run_checks(list(dict.fromkeys(names)), runner, results)
    print("\n" + "\n".join(results.table()))
    oks = [row.ok for rows in done.values() for row in rows]
    print(
        f"{oks.count(True)} ok, {oks.count(False)} failed, {oks.count(None)} not run in "
        f"{time.monotonic() - begin_s:.0f} s ({again}); written to {path}"
    )
    late = [name for name, rows in done.items() if rows and rows[-1].note == NO_TIME]
    if late:
        print(f"no time was left for these; go on with: --only {' '.join(late)}")
        if any(row.ok is False and row.case == "all" for row in done.get("mosaic_scan", ())):
            print("and with --without-mosaic, whose own check did not end by itself")
    return 1 if False in oks else 3 if late or True not in oks else 0


def _python_path() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="gpu_check.sh", description="Check jaxrank on a GPU and measure it."
    )
    parser.add_argument("--cpu", action="store_true", help="toy sizes, no GPU needed")
    parser.add_argument(
        "--without-mosaic", action="store_true", help="keep off these kernels, as after a hang"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        help=f"run these checks only: {', '.join(CHECKS)}",
    )
    parser.add_argument(
        "--skip-benchmarks", action="store_true", help="check correctness, measure nothing"
    )
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(2**31), help="of all random inputs"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        help="end after so many; default 9, so that a command of ten ends by itself; --cpu: none",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help=f"default {ON_GPU}; with --cpu {ON_CPU}"
    )
    options = parser.parse_args()
    for name in options.only or ():
        if name not in CHECKS:
            known = ", ".join(CHECKS)
            parser.exit(2, f"error: --only: {name!r} is no check; known are {known}\n")
    if options.minutes is not None and not options.minutes > 0:
        parser.exit(2, f"error: --minutes: got {options.minutes}; more than 0 is needed\n")
    return options


if __name__ == "__main__":
    sys.exit(main())
