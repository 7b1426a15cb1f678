"""One call of the command: what its options ask for, measured or read, and written."""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from jaxrank.benchmarking.cases import SUBJECTS, Case
from jaxrank.benchmarking.options import choice_of, rounds_of
from jaxrank.benchmarking.plot import plot_rows
from jaxrank.benchmarking.report import (
    OUT_OF_MEMORY,
    Report,
    Row,
    brief,
    describe_machine,
    load_report,
    merge_reports,
    this_command,
)
from jaxrank.benchmarking.rivals import load_rivals
from jaxrank.benchmarking.run import MakeOurs, run_benchmarks
from jaxrank.benchmarking.sizes import plan_cases
from jaxrank.files import check_target

MakeTexts = Callable[[argparse.Namespace], tuple[Case, MakeOurs]]


def make_report(
    options: argparse.Namespace, *, make_texts: MakeTexts, say: Callable[[str], None]
) -> Report:
    """Measure, or put together what earlier calls wrote.

    The JSON is written anew with each row: a call that is ended leaves what it has measured.

    Args:
        make_texts: for a model folder: the case of its texts, and what builds our side of it.
        say: called with each row as it comes, and with what is left out.

    Raises:
        InputError: something unknown is asked for, or an output cannot be written.
    """
    for path in filter(None, (options.json, options.plot)):
        check_target(path)
    if options.read:
        return merge_reports(map(load_report, options.read))
    jax.config.update("jax_enable_compilation_cache", False)  # compilation is measured too
    make_ours = None
    if options.model is None:
        sizes = options.sizes or ("small" if jax.default_backend() == "cpu" else "full")
        cases = plan_cases(options.subjects or list(SUBJECTS), sizes, choice_of(options))
    else:
        case, make_ours = make_texts(options)
        cases = [case]
    machine, rows = describe_machine(), list[Row]()

    def show(row: Row) -> None:
        rows.append(row)
        say(brief(row))
        if options.json:
            Report(tuple(rows), machine, this_command()).save(options.json)

    return run_benchmarks(
        cases,
        implementations=options.implementation,
        rivals=load_rivals(options.against, only=options.rivals) if options.against else {},
        rounds=rounds_of(options),
        make_ours=make_ours,
        say=say,
        show=show,
    )


def write_report(report: Report, options: argparse.Namespace) -> Iterator[Path]:
    """Write the files that were asked for, and yield them."""
    if options.json:
        report.save(options.json)
        yield options.json
    if options.plot:
        plot_rows(report.rows, options.plot)
        yield options.plot


def has_failed(report: Report) -> bool:
    """Whether a side ended in another way than for want of memory."""
    return any(row.failed not in (None, OUT_OF_MEMORY) for row in report.rows)
