"""Reports as rows of LaTeX and CSV."""

import csv
import io

import pytest

from jaxrank.evaluation.csv_rows import csv_text
from jaxrank.evaluation.latex import escape_latex, latex_row, latex_rows
from jaxrank.evaluation.query_values import QueryValues
from jaxrank.evaluation.report import Report, compare_runs
from jaxrank.evaluation.slices import slice_report

QRELS = {f"q{i}": {"d1": 1} for i in range(8)}
BASE = {f"q{i}": {"d2": 2.0, "d1": 1.0} for i in range(8)}
BETTER = {f"q{i}": {"d1": 2.0, "d2": 1.0} if i < 6 else BASE[f"q{i}"] for i in range(8)}


@pytest.fixture
def report() -> Report:
    runs = {"bm25_a": BASE, "better": BETTER, "same": BASE}
    return compare_runs(QRELS, runs, ["RR@10", "R@100"], correction="holm")


def test_a_latex_row_is_that_of_table_3(report: Report) -> None:
    columns, dagger, *rows = latex_rows(report)
    assert columns == "% run & RR@10 & R@100; means over 8 queries"
    assert dagger == "% dagger: p < 0.05 against bm25_a (paired t-test, correction: holm)"
    assert rows == [
        r"bm25\_a & 0.5000 & 1.0000 \\",
        r"better & 0.8750$^{\dagger}$ & 1.0000 \\",
        r"same & 0.5000 & 1.0000 \\",
    ]


def test_the_dagger_goes_by_the_corrected_p_value() -> None:
    few = {f"q{i}": BETTER[f"q{i}"] if i < 5 else BASE[f"q{i}"] for i in range(8)}
    runs = {"base": BASE, "few": few} | {f"same{i}": BASE for i in range(9)}
    plain = compare_runs(QRELS, runs, ["RR@10"])
    assert 0.005 < plain.tests["few"]["RR@10"].p_t_test < 0.05
    assert "dagger" in list(latex_rows(plain))[3]
    corrected = compare_runs(QRELS, runs, ["RR@10"], correction="bonferroni")
    assert "dagger" not in list(latex_rows(corrected))[3]


def test_a_missing_value_is_a_dash_and_names_are_escaped() -> None:
    assert latex_row("a & b_1", [0.5, None], [True, False]) == (
        r"a \& b\_1 & 0.5000$^{\dagger}$ & -- \\"
    )
    assert escape_latex(r"50% #1 {x} ~^\$") == (
        r"50\% \#1 \{x\} \textasciitilde{}\textasciicircum{}\textbackslash{}\$"
    )


def test_csv_has_a_line_a_slice_run_and_measure(report: Report) -> None:
    values = QueryValues("length, words", {f"q{i}": float(i) for i in range(8)})
    slicing = slice_report(report, values, [4.0])
    rows = list(csv.DictReader(io.StringIO(csv_text(report, [slicing]))))
    assert len(rows) == 3 * 3 * 2
    assert [row["slice"] for row in rows[::6]] == ["all", "0 to 3", "4 to 7"]
    assert rows[6]["sliced_by"] == "length, words"
    base, better = rows[0], rows[2]
    assert (base["run"], base["difference"], base["p_t_test"]) == ("bm25_a", "", "")
    assert (better["run"], better["measure"], better["queries"]) == ("better", "RR@10", "8")
    test = report.tests["better"]["RR@10"]
    assert float(better["mean"]) == 0.875
    assert float(better["difference"]) == test.difference
    assert float(better["p_t_test"]) == test.p_t_test
    corrected = report.p_values["better"]["RR@10"].t_test
    assert float(better["p_t_test_corrected"]) == corrected == pytest.approx(2 * test.p_t_test)
    interval = report.intervals["better"]["RR@10"]
    assert interval is not None
    assert (float(better["mean_low"]), float(better["mean_high"])) == interval


def test_csv_leaves_out_what_is_not_there() -> None:
    plain = compare_runs({"q0": {"d1": 1}}, {"base": BASE}, ["RR@10"])
    (row,) = csv.DictReader(io.StringIO(csv_text(plain)))
    assert (row["mean"], row["mean_low"], row["correction"]) == ("0.5", "", "")
