"""Checks the project on a GPU and measures it: what `scripts/gpu_check.sh` runs.

A check is a function from `Sizes` to rows; CHECKS lists them by name. A row says what was compared,
the largest error and what is allowed, or what was measured. Correctness is computed with "highest"
matrix products, since a GPU's float32 default is TF32; speed with the defaults.

Needs jax, flax, optax, numpy and jaxtyping alone; the check named resume orbax-checkpoint too. Exit
status: 0 all is well, 1 a check failed, 2 there is no GPU.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

from jaxrank.files import atomic_open
from jaxrank.version import source_state
from scripts.gpu_check.ops import (
    check_attention,
    check_causal_conv1d,
    check_norms_and_dropout,
    check_selective_scan,
    check_ssd,
)
from scripts.gpu_check.resume import check_resume
from scripts.gpu_check.rows import TOY_SIZES, Row, Sizes, format_row
from scripts.gpu_check.training import check_training

ROOT = Path(__file__).resolve().parents[2]

CHECKS: dict[str, Callable[[Sizes], Iterator[Row]]] = {
    "selective_scan": check_selective_scan,
    "ssd": check_ssd,
    "causal_conv1d": check_causal_conv1d,
    "attention": check_attention,
    "norms_and_dropout": check_norms_and_dropout,
    "training": check_training,
    "resume": check_resume,
}


def run_checks(names: Sequence[str], sizes: Sizes) -> list[Row]:
    """Run the checks, printing each row; an exception is a failed row, and the next check runs."""
    rows = []
    for name in names:
        start = time.perf_counter()
        try:
            for row in CHECKS[name](sizes):
                rows.append(row)
                print(format_row(row), flush=True)
        except Exception as error:
            rows.append(Row(name, "stopped", ok=False, note=f"{type(error).__name__}: {error}"))
            print(format_row(rows[-1]), flush=True)
        print(f"  {name}: {time.perf_counter() - start:.1f} s", flush=True)
    return rows


def describe_machine() -> dict[str, Any]:
    """Device, versions and commit: what a number means nothing without."""
    versions = {"python": platform.python_version()}
    for package in ("jax", "jaxlib", "flax", "optax", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "unknown"
    device = jax.devices()[0]
    return {
        "device": device.device_kind,
        "backend": jax.default_backend(),
        "devices": jax.device_count(),
        "versions": versions,
        "source": source_state(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def main() -> int:
    """Run the chosen checks, print the table, write the JSON; return the exit status."""
    parser = argparse.ArgumentParser(description="Check jaxrank on a GPU and measure it.")
    parser.add_argument("--cpu", action="store_true", help="toy sizes, no GPU needed")
    parser.add_argument("--only", nargs="+", choices=list(CHECKS), help="run these checks only")
    parser.add_argument("--json", type=Path, help="benchmarks/results/gpu_check.json by default")
    options = parser.parse_args()
    if options.cpu:
        jax.config.update("jax_platforms", "cpu")
    elif jax.default_backend() != "gpu":
        print(
            f"error: jax sees no GPU (backend {jax.default_backend()!r}); install jax[cuda13], "
            "or pass --cpu for a toy run",
            file=sys.stderr,
        )
        return 2

    machine = describe_machine()
    print(f"{machine['device']}, jax {machine['versions']['jax']}", flush=True)
    rows = run_checks(options.only or list(CHECKS), TOY_SIZES if options.cpu else Sizes())
    default = "gpu_check_cpu.json" if options.cpu else "gpu_check.json"
    path = options.json or ROOT / "benchmarks" / "results" / default
    result = {"machine": machine, "rows": [asdict(row) for row in rows]}
    with atomic_open(path) as file:
        file.write(json.dumps(result, indent=1) + "\n")
    failed = sum(not row.ok for row in rows)
    print(f"{len(rows) - failed} ok, {failed} failed; written to {path}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
