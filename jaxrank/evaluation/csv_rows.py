"""A report as CSV: one line a slice, run and measure, for spreadsheets and plotting."""

import csv
import io
from collections.abc import Sequence

from jaxrank.evaluation.report import Report
from jaxrank.evaluation.slices import Slicing

CSV_HEADER = (
    "sliced_by", "slice", "queries", "run", "measure", "mean", "mean_low", "mean_high",
    "baseline", "difference", "difference_low", "difference_high", "p_t_test", "p_permutation",
    "correction", "p_t_test_corrected", "p_permutation_corrected", "wins", "ties", "losses",
    "missing_queries",
)  # fmt: skip


def csv_text(report: Report, slicings: Sequence[Slicing] = ()) -> str:
    """The report over all queries (slice "all"), then each slice's; what is not there is empty."""
    file = io.StringIO()
    writer = csv.DictWriter(file, CSV_HEADER, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(_rows(report, {"slice": "all"}))
    for slicing in slicings:
        for one in slicing.slices:
            writer.writerows(_rows(one.report, {"sliced_by": slicing.name, "slice": one.label}))
    return file.getvalue()


def _rows(report: Report, part: dict[str, str]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for name, evaluation in report.evaluations.items():
        for measure, mean in evaluation.means.items():
            row: dict[str, object] = {
                **part,
                "queries": report.num_queries,
                "run": name,
                "measure": measure,
                "mean": mean,
                "missing_queries": len(evaluation.missing_queries),
            }
            row |= _ends("mean", report.intervals[name][measure])
            if name in report.tests:
                row |= _test(report, name, measure)
            rows.append(row)
    return rows


def _test(report: Report, name: str, measure: str) -> dict[str, object]:
    test, p = report.tests[name][measure], report.p_values[name][measure]
    row: dict[str, object] = {
        "baseline": report.baseline,
        "difference": test.difference,
        "p_t_test": test.p_t_test,
        "p_permutation": test.p_permutation,
        "correction": report.correction,
        "wins": test.wins,
        "ties": test.ties,
        "losses": test.losses,
        **_ends("difference", test.interval),
    }
    if report.correction != "none":
        row |= {"p_t_test_corrected": p.t_test, "p_permutation_corrected": p.permutation}
    return row


def _ends(name: str, interval: tuple[float, float] | None) -> dict[str, object]:
    return {f"{name}_low": interval[0], f"{name}_high": interval[1]} if interval else {}
