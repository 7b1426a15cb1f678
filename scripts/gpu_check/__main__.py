"""Checks the project on a GPU and measures it: what `scripts/gpu_check.sh` runs.

A check is a function from `Sizes` to rows; CHECKS lists them by name, correctness first, then the
benchmarks. A row says what was compared, the largest error and what is allowed, or what was
measured. Correctness is computed with "highest" matrix products, since a GPU's float32 default is
TF32; speed with the defaults. Inputs are drawn from a new seed each time; the seed is printed.

Needs jax, flax, optax, numpy and jaxtyping alone; the check named resume orbax-checkpoint too. Exit
status: 0 all is well, 1 a check failed, 2 there is no GPU.
"""

import argparse
import gc
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import jax

from jaxrank.benchmarking.report import describe_machine
from scripts.gpu_check.around import check_causal_conv1d, check_norms_and_dropout, time_around
from scripts.gpu_check.attention import check_attention
from scripts.gpu_check.benchmarks import Benchmarks
from scripts.gpu_check.models import check_models
from scripts.gpu_check.poison import check_poisoned
from scripts.gpu_check.repeats import check_repeats
from scripts.gpu_check.results import Results
from scripts.gpu_check.resume import check_resume
from scripts.gpu_check.rows import TOY_SIZES, Row, Sizes, format_row
from scripts.gpu_check.scan import check_mosaic_scan, check_selective_scan
from scripts.gpu_check.ssd import check_ssd
from scripts.gpu_check.training import check_training

ROOT = Path(__file__).resolve().parents[2]

Check = Callable[[Sizes], Iterator[Row]]
BENCHMARKS = Benchmarks()
CORRECTNESS: dict[str, Check] = {
    "mosaic_scan": check_mosaic_scan,
    "selective_scan": check_selective_scan,
    "ssd": check_ssd,
    "attention": check_attention,
    "causal_conv1d": check_causal_conv1d,
    "norms_and_dropout": check_norms_and_dropout,
    "poisoned": check_poisoned,
    "repeats": check_repeats,
    "models": check_models,
    "training": check_training,
    "resume": check_resume,
}
SPEED: dict[str, Check] = {
    **{
        f"bench_{subject}": BENCHMARKS.check(subject)
        for subject in ("scan", "train", "ssd", "attention", "score", "layer")
    },
    "bench_around": time_around,
}
CHECKS: dict[str, Check] = {**CORRECTNESS, **SPEED}


def run_checks(
    names: Sequence[str],
    sizes: Sizes,
    results: Results | None = None,
    *,
    deadline_s: float = float("inf"),
) -> list[Row]:
    """Run the checks, printing each row; an exception is a failed row, and the next check runs.

    Args:
        results: where each check's rows are written as soon as it ends.
        deadline_s: of `time.monotonic()`, after which no check begins.
    """
    rows: list[Row] = []
    for name in names:
        begin = time.monotonic()
        done: list[Row] = []
        measured = len(BENCHMARKS.measured)
        for row in _rows_of(name, sizes, is_late=begin > deadline_s):
            done.append(row)
            print(format_row(row), flush=True)
        gc.collect()  # arrays of a check must not be held while the next one measures memory
        seconds = time.monotonic() - begin
        print(f"  {name}: {seconds:.1f} s", flush=True)
        rows += done
        if results is not None:
            of_check = BENCHMARKS.measured[measured:]
            results.add(name, done, seed=sizes.seed, seconds=seconds, measured=of_check)
    return rows


def _rows_of(name: str, sizes: Sizes, *, is_late: bool) -> Iterator[Row]:
    if is_late:
        yield Row(name, "all", ok=None, note=f"no time is left: --only {name}, or more --minutes")
        return
    try:
        yield from CHECKS[name](sizes)
    except Exception as error:
        yield Row(name, "stopped", ok=False, note=f"{type(error).__name__}: {error}")


def main() -> int:
    """Run the chosen checks, print the table, write the JSON; return the exit status."""
    options = _parse()
    if options.cpu:
        jax.config.update("jax_platforms", "cpu")
    elif jax.default_backend() != "gpu":
        print(
            f"error: jax sees no GPU (backend {jax.default_backend()!r}); install jax[cuda13], "
            "or pass --cpu for a toy run",
            file=sys.stderr,
        )
        return 2
    begin = time.monotonic()
    machine = describe_machine()
    sizes = replace(TOY_SIZES if options.cpu else Sizes(), seed=options.seed)
    default = "gpu_check_cpu.json" if options.cpu else "gpu_check.json"
    path = options.json or ROOT / "benchmarks" / "results" / default
    results = Results(path, machine, keep=options.only is not None)
    names = options.only or list(CORRECTNESS if options.skip_benchmarks else CHECKS)
    again = f"--seed {options.seed}"
    print(f"{machine['device']}, jax {machine['versions']['jax']}, {again}", flush=True)
    rows = run_checks(names, sizes, results, deadline_s=begin + 60 * options.minutes)
    oks = [row.ok for row in rows]
    print("\n" + "\n".join(results.table()))
    print(
        f"{oks.count(True)} ok, {oks.count(False)} failed, {oks.count(None)} not run in "
        f"{time.monotonic() - begin:.0f} s ({again}); written to {path}"
    )
    return 1 if False in oks else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="gpu_check.sh", description="Check jaxrank on a GPU and measure it."
    )
    parser.add_argument("--cpu", action="store_true", help="toy sizes, no GPU needed")
    parser.add_argument("--only", nargs="+", choices=list(CHECKS), help="run these checks only")
    parser.add_argument(
        "--skip-benchmarks", action="store_true", help="check correctness, measure nothing"
    )
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(2**31), help="of all random inputs"
    )
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="begin no check after so many; default 10"
    )
    parser.add_argument("--json", type=Path, help="benchmarks/results/gpu_check.json by default")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
