"""Reports as aligned text for the terminal."""

from collections.abc import Sequence

from jaxrank.evaluation.report import Report
from jaxrank.evaluation.significance import Interval
from jaxrank.evaluation.slices import Slicing

_NUM_TEXT_COLUMNS = 2
_MEAN_INTERVAL = 3
_NUM_MEAN_COLUMNS = 4


def comparison_table(report: Report) -> str:
    """Means and tests of a report.

    A single run has intervals of its means and no columns for tests; several have intervals of
    their differences instead, which say more about them.
    """
    header, *rows = [_header(report), *_rows(report)]
    if not report.tests:
        lines = [line[:_NUM_MEAN_COLUMNS] for line in (header, *rows)]
    else:
        lines = [
            line[:_MEAN_INTERVAL] + line[_MEAN_INTERVAL + 1 :]
            for line in (("measure", "run", "mean", "", *header[_NUM_MEAN_COLUMNS:]), *rows)
        ]
    return render_table(lines[0], lines[1:], text_columns=_NUM_TEXT_COLUMNS)


def slice_table(slicing: Slicing) -> str:
    """Means with intervals, and tests, slice by slice."""
    first = slicing.slices[0].report
    width = len(_header(first)) if first.tests else _NUM_MEAN_COLUMNS
    rows = [
        (one.label, str(one.report.num_queries), *row[:width])
        for one in slicing.slices
        for row in _rows(one.report)
    ]
    # The number of queries stands between texts, so it is aligned as one.
    header = (slicing.name, "queries", *_header(first)[:width])
    return render_table(header, rows, text_columns=2 + _NUM_TEXT_COLUMNS)


def render_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, text_columns: int = 1
) -> str:
    """Rows as aligned text under a header; the first `text_columns` flush left, the rest right."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    texts = [_aligned(line, widths, text_columns) for line in lines]
    return "\n".join([texts[0], "-" * max(map(len, texts)), *texts[1:]])


def _header(report: Report) -> tuple[str, ...]:
    how = "" if report.correction == "none" else f", {report.correction}"
    return (
        "measure", "run", "mean", "95% interval", "difference", "95% interval", f"p (t-test{how})",
        f"p (permutation{how})", "wins/ties/losses",
    )  # fmt: skip


def _rows(report: Report) -> list[tuple[str, ...]]:
    return [
        _row(report, measure, name) for measure in report.measures for name in report.evaluations
    ]


def _row(report: Report, measure: str, name: str) -> tuple[str, ...]:
    mean = f"{report.evaluations[name].means[measure]:.4f}"
    own = _interval_text(report.intervals[name][measure], "")
    if name == report.baseline:
        return (measure, name, mean, own, "", "", "", "", "")
    test, p = report.tests[name][measure], report.p_values[name][measure]
    return (
        measure,
        name,
        mean,
        own,
        f"{test.difference:+.4f}",
        _interval_text(test.interval, "+"),
        _p_text(p.t_test),
        _p_text(p.permutation),
        f"{test.wins}/{test.ties}/{test.losses}",
    )


def _interval_text(interval: Interval | None, sign: str) -> str:
    return " ".join(f"{end:{sign}.4f}" for end in interval) if interval else "-"


def _p_text(p: float) -> str:
    return "<.0001" if p < 0.0001 else f"{p:.4f}"


def _aligned(line: Sequence[str], widths: list[int], text_columns: int) -> str:
    cells = [
        cell.ljust(width) if column < text_columns else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(line, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()
