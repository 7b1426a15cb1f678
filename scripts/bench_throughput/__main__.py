"""Runs the parts of the throughput study that have no result yet, then makes table and figure."""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from jaxrank.benchmarking.cases import Case, ModelShape
from jaxrank.benchmarking.plot import plot_rows
from jaxrank.benchmarking.report import (
    LEGEND,
    OUT_OF_MEMORY,
    Report,
    load_report,
    make_row,
    merge_reports,
    table,
)
from jaxrank.errors import InputError
from scripts.bench_throughput.parts import GROUPS, LENGTHS, Part, plan_parts
from scripts.packed import pack, unpack

ROOT = Path(__file__).resolve().parents[2]
PART_S = 460.0
"""After which a part is ended: each is to stay under 8 minutes."""
NO_TIME, TOO_LONG = "no time is left", f"not done in {PART_S:.0f} s"
_REPORT = "throughput.json"


def run_part(part: Part, folder: Path, options: argparse.Namespace, *, limit_s: float) -> bool:
    """Run a part in a process of its own; False if the time of the study ran out over it.

    What the system ended for want of memory, and what took longer than a part may, has a row that
    says so, and is not tried again; any other failure is printed, and a later call tries again.
    Where rivals were measured too and it failed, ours are measured alone: it may have been theirs.
    """
    begin_s = time.monotonic()
    reason = _run_process(part, folder, options, options.against, limit_s=limit_s)
    if reason and options.against is not None:
        print(f"  with {options.against}: {reason}; ours alone:", flush=True)
        limit_s -= time.monotonic() - begin_s
        if limit_s > 0:
            reason = _run_process(part, folder, options, None, limit_s=limit_s)
    if reason in (OUT_OF_MEMORY, TOO_LONG):
        _record_failure(part, folder, reason)
    elif reason and reason != NO_TIME:
        print(f"  {reason}", flush=True)
    return reason != NO_TIME


def _run_process(
    part: Part, folder: Path, options: argparse.Namespace, against: str | None, *, limit_s: float
) -> str:
    """Run it; returns why it has left no report, or nothing."""
    more = ["--repeats", "2", "--least-s", "0.01"] if options.toy else []
    arguments = part.arguments(folder, against=against, more=more)
    command = [sys.executable, "-m", "jaxrank.bench", *arguments]
    environment = os.environ | ({"JAX_PLATFORMS": "cpu"} if options.toy else {})
    try:
        result = subprocess.run(
            command, cwd=ROOT, env=environment, timeout=min(PART_S, limit_s), check=False,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return NO_TIME if limit_s < PART_S else TOO_LONG
    if (folder / part.file).exists():
        return ""
    # A process that took all of the machine's memory is killed, and writes nothing.
    if result.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return OUT_OF_MEMORY
    return (result.stderr.strip().splitlines() or ["no message"])[-1]


def _record_failure(part: Part, folder: Path, reason: str) -> None:
    subject = "train" if part.subject == "train" else "score"
    direction = "step" if subject == "train" else "forward"
    case = Case(subject, ModelShape(part.preset, 1, part.length), direction, "bfloat16")
    Report((make_row(case, "jaxrank", failed=reason),), {}).save(folder / part.file)


def _find_backend() -> str:
    """JAX's platform, asked in another process: this one must leave the GPU to the parts."""
    program = "import jax; print(jax.default_backend())"
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    return ((done.stdout or done.stderr).strip().splitlines() or ["no message"])[-1]


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="bash scripts/bench_throughput.sh", description="Make the throughput study."
    )
    names = [name for name in GROUPS if name != "toy"]
    parser.add_argument("--groups", nargs="+", choices=names, default=names)
    parser.add_argument("--lengths", nargs="+", type=int, default=list(LENGTHS))
    parser.add_argument("--against", metavar="MODULE", help="e.g. scripts.pytorch_rivals")
    parser.add_argument("--minutes", type=float, help="end after so long; go on later")
    parser.add_argument(
        "--packed", type=Path, metavar="FILE", help="all parts' results in one file, there and back"
    )
    parser.add_argument("--output", type=Path, metavar="DIR")
    parser.add_argument("--toy", "--cpu", action="store_true", help="toy sizes, on a CPU")
    options = parser.parse_args()
    for name, values in (("lengths", options.lengths), ("minutes", [options.minutes])):
        for value in values:
            if value is not None and not value > 0:
                parser.exit(2, f"error: --{name}: got {value}; more than 0 is needed\n")
    if options.toy:
        options.groups, options.lengths = ["toy"], [16, 32]
    default = "throughput_toy" if options.toy else "throughput"
    options.output = options.output or ROOT / "benchmarks" / "results" / default
    return options


def main() -> int:
    """Run what is missing, print the table, write report and figure; the exit status."""
    options = parse()
    folder = options.output.absolute()
    parts = plan_parts(options.groups, options.lengths)
    if options.packed is not None and options.packed.exists():
        unpack(options.packed, folder)
    if not options.toy and not all((folder / part.file).exists() for part in parts):
        backend = _find_backend()
        if backend != "gpu":
            print(
                f"error: jax sees no GPU (backend {backend!r}); install jax[cuda13], or pass --toy "
                "for a run without one",
                file=sys.stderr,
            )
            return 2
    end = time.monotonic() + 60 * (options.minutes or float("inf"))
    for number, part in enumerate(parts, start=1):
        if (folder / part.file).exists():
            continue
        left_s = end - time.monotonic()
        print(f"{number} of {len(parts)}: {part.subject} {part.preset} {part.length}", flush=True)
        if left_s <= 0 or not run_part(part, folder, options, limit_s=left_s):
            print("stopped, as --minutes are over; the same command goes on")
            break
        if options.packed is not None:
            pack(folder, options.packed)
    done = [folder / part.file for part in parts if (folder / part.file).exists()]
    if not done:
        return 1
    # The machine of a report is that of its first part; a part that was ended names none.
    reports = sorted(map(load_report, done), key=lambda report: not report.machine)
    report = merge_reports(reports)
    report.save(folder / _REPORT)
    print(f"{table(report.rows)}\n\n{LEGEND}")
    print(f"wrote {folder / _REPORT}")
    for group in options.groups:
        rows = [row for row in report.rows if row.name in GROUPS[group]]
        figure = folder / f"throughput-{group}.png"
        try:
            plot_rows(rows, figure)
            print(f"wrote {figure}")
        except InputError as error:
            print(error)
    failed = [row for row in report.rows if row.failed not in (None, OUT_OF_MEMORY)]
    return 1 if failed or len(done) < len(parts) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
