"""python -m jaxrank.evaluate: measures of one or more runs, tested query by query."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxrank.command_line import run
from jaxrank.options import parse


@dataclass(frozen=True)
class EvaluateOptions:
    """Compare runs on the same judgements; queries that a run lacks count 0."""

    qrels: Path
    """Judgements: TREC (4 columns) or BEIR (3 columns under a header)."""
    runs: tuple[Path, ...]
    """TREC runs, one or more; may be gzip."""
    measures: str = "RR@10 nDCG@10 R@50"
    """ir-measures' names; binary ones take grades >= 1 as relevant, "RR(rel=2)@10" those >= 2."""
    baseline: Path | None = None
    """The run of --runs that the others are tested against; null takes the first."""
    json: Path | None = None
    """JSON file to write the means and tests to."""
    per_query: Path | None = None
    """TSV file to write every query's values to: run, measure, query, value."""


def main(argv: Sequence[str] | None = None) -> None:
    """Read judgements and runs, print the table, write what was asked for."""
    options = parse(EvaluateOptions, "jaxrank.evaluate", argv)
    from jaxrank.evaluation.measures import split_measures
    from jaxrank.evaluation.qrels import read_qrels
    from jaxrank.evaluation.report import compare_runs, name_runs
    from jaxrank.evaluation.runs import read_run
    from jaxrank.files import atomic_open, check_target

    for output in filter(None, (options.json, options.per_query)):
        check_target(output)
    names = name_runs(options.runs, options.baseline)
    report = compare_runs(
        read_qrels(options.qrels),
        {name: read_run(path) for name, path in names.items()},
        split_measures(options.measures),
        progress=True,
    )
    print(f"{options.qrels}: {report.num_queries} queries; baseline {report.baseline}")
    print(report.table())
    print("".join(f"{note}\n" for note in report.notes()), end="")
    if options.json:
        with atomic_open(options.json) as file:
            json.dump({"qrels": str(options.qrels), **report.as_json()}, file, indent=2)
            file.write("\n")
        print(f"wrote {options.json}")
    if options.per_query:
        with atomic_open(options.per_query) as file:
            file.writelines(f"{line}\n" for line in report.per_query_lines())
        print(f"wrote {options.per_query}")


if __name__ == "__main__":
    run(main)
