"""One check in a process of its own: its rows go to a file as they come, a line of JSON each.

    python -m scripts.gpu_check.worker CHECK FILE --seed N [--cpu] [--without-mosaic]

The check named MACHINE is none: it writes what the device is. The last line says that the check has
come to its end, which the exit status does not: CUDA libraries can crash while a process ends.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax

from jaxrank.benchmarking.report import describe_machine
from scripts.gpu_check.checks import CHECKS
from scripts.gpu_check.rows import TOY_SIZES, Row, Sizes, format_row, go_on

MACHINE = "machine"
END = {"end": True}


def main() -> None:
    """Run the check, print its rows and write them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("check", choices=[MACHINE, *CHECKS])
    parser.add_argument("file", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--without-mosaic", action="store_true")
    options = parser.parse_args()
    if options.cpu:
        jax.config.update("jax_platforms", "cpu")
    sizes = replace(
        TOY_SIZES if options.cpu else Sizes(),
        seed=options.seed,
        has_mosaic=not options.without_mosaic,
    )
    with options.file.open("a", encoding="utf-8") as file:

        def write(value: Any) -> None:
            file.write(json.dumps(value) + "\n")
            file.flush()

        if options.check == MACHINE:
            write(describe_machine())
        else:
            for row in run_check(options.check, sizes):
                print(format_row(row), flush=True)
                write(asdict(row))
        write(END)


def run_check(name: str, sizes: Sizes) -> Iterator[Row]:
    """The rows of a check; an exception is a failed one."""
    yield from go_on(name, "all", CHECKS[name].run(sizes))


if __name__ == "__main__":
    sys.exit(main())
