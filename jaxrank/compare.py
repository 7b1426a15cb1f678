"""python -m jaxrank.compare: one HTML page about several training runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxrank.command_line import run
from jaxrank.options import parse


@dataclass(frozen=True)
class CompareOptions:
    """Compare training runs on one HTML page that opens without network."""

    runs: tuple[Path, ...]
    """Run folders, one or more; they may stand first, without --runs."""
    output: Path = Path("compare.html")
    """The page to write."""
    baseline: Path | None = None
    """The run that the others are compared with; null takes the first."""


def main(argv: Sequence[str] | None = None) -> None:
    """Read the run folders, write the page, say where it is."""
    options = parse(CompareOptions, "jaxrank.compare", argv, first="runs")
    from jaxrank.comparison.page import make_page
    from jaxrank.comparison.read import files_of, read_runs
    from jaxrank.files import atomic_open, check_apart, check_target

    check_target(options.output)
    check_apart(options.output, {"--runs": files_of(options.runs)})
    page = make_page(read_runs(options.runs, options.baseline), progress=True)
    with atomic_open(options.output) as file:
        file.write(page)
    print(f"wrote {options.output}")


if __name__ == "__main__":
    run(main)
