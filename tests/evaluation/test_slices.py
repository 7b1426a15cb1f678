import pytest

from jaxrank.errors import InputError
from jaxrank.evaluation.query_values import QueryValues
from jaxrank.evaluation.report import compare_runs
from jaxrank.evaluation.slices import slice_report, split_at, split_evenly
from jaxrank.evaluation.text_tables import slice_table

QRELS = {f"q{i}": {"d1": 1} for i in range(12)}
BASE = {f"q{i}": {"d2": 2.0, "d1": 1.0} for i in range(12)}
# Better on the first six queries, as good on the others.
BETTER = {f"q{i}": {"d1": 2.0, "d2": 1.0} if i < 6 else BASE[f"q{i}"] for i in range(12)}
LENGTHS = QueryValues("length", {f"q{i}": float(i) for i in range(12)})


def sizes(parts: list[list[str]]) -> list[int]:
    return [len(part) for part in parts]


def test_quantiles_have_equal_counts() -> None:
    assert sizes(split_evenly({f"q{i}": float(i) for i in range(12)}, 4)) == [3, 3, 3, 3]
    assert sizes(split_evenly({f"q{i}": float(i) for i in range(10)}, 4)) == [2, 3, 2, 3]


def test_equal_values_stay_together() -> None:
    values = {f"q{i}": value for i, value in enumerate([1.0] * 5 + [2.0, 3.0, 4.0])}
    parts = split_evenly(values, 4)
    assert parts[0] == ["q0", "q1", "q2", "q3", "q4"]
    assert sorted(query for part in parts for query in part) == sorted(values)
    assert split_evenly(dict.fromkeys("abc", 1.0), 4) == [["a", "b", "c"]]


def test_a_slice_begins_at_its_edge() -> None:
    values = {"a": 1.0, "b": 5.0, "c": 5.5, "d": 9.0}
    assert split_at(values, [5.0, 9.0]) == [["a"], ["b", "c"], ["d"]]
    assert split_at(values, [9.0, 5.0]) == split_at(values, [5.0, 9.0])
    assert split_at(values, [100.0]) == [["a", "b", "c", "d"]]


def test_each_slice_has_its_own_means_and_tests() -> None:
    report = compare_runs(QRELS, {"base": BASE, "better": BETTER}, ["RR@10"])
    low, high = slice_report(report, LENGTHS, [6.0]).slices
    assert (low.label, high.label) == ("0 to 5", "6 to 11")
    assert low.report.evaluations["better"].means["RR@10"] == 1.0
    assert low.report.tests["better"]["RR@10"].difference == 0.5
    assert low.report.tests["better"]["RR@10"].wins == 6
    assert high.report.evaluations["better"].means["RR@10"] == 0.5
    assert high.report.p_values["better"]["RR@10"].t_test == 1.0
    assert low.report.intervals["base"]["RR@10"] == pytest.approx((0.5, 0.5))


def test_queries_without_a_value_are_counted() -> None:
    report = compare_runs(QRELS, {"base": BASE}, ["RR@10"])
    values = QueryValues("position", {"q1": 1.0, "q2": 2.0, "other": 3.0}, ("a remark",))
    slicing = slice_report(report, values, [2.0])
    assert [one.report.num_queries for one in slicing.slices] == [1, 1]
    assert slicing.notes() == ["a remark", "position: 10 queries have no value, so no slice"]
    assert slicing.as_json()["without_value"] == 10
    with pytest.raises(InputError, match="position has a value for none of the 12 queries"):
        slice_report(report, QueryValues("position", {"x": 1.0}))


def test_a_slice_counts_the_queries_that_the_run_lacks() -> None:
    run = {query: scores for query, scores in BASE.items() if query not in ("q0", "q11")}
    report = compare_runs(QRELS, {"base": run}, ["RR@10", "NumRet"])
    low, high = slice_report(report, LENGTHS, [6.0]).slices
    assert low.report.evaluations["base"].missing_queries == ("q0",)
    assert high.report.evaluations["base"].missing_queries == ("q11",)
    assert low.report.evaluations["base"].means == pytest.approx({"RR@10": 2.5 / 6, "NumRet": 10})


def test_p_values_are_corrected_over_all_slices_of_a_measure() -> None:
    runs = {"base": BASE, "better": BETTER}
    plain = slice_report(compare_runs(QRELS, runs, ["RR@10", "R@1"]), LENGTHS)
    report = compare_runs(QRELS, runs, ["RR@10", "R@1"], correction="bonferroni")
    corrected = slice_report(report, LENGTHS)
    assert len(corrected.slices) == 4
    for before, after in zip(plain.slices, corrected.slices, strict=True):
        p = before.report.p_values["better"]["RR@10"].permutation
        assert after.report.p_values["better"]["RR@10"].permutation == min(1.0, 4 * p)
    assert "not corrected for the 4 comparisons" in plain.notes()[-1]
    assert "corrected (bonferroni) over the 4 comparisons" in corrected.notes()[-1]


def test_the_table_has_a_line_a_slice_measure_and_run() -> None:
    report = compare_runs(QRELS, {"base": BASE, "better": BETTER}, ["RR@10"])
    header, _, *rows = slice_table(slice_report(report, LENGTHS, [6.0])).splitlines()
    assert header.split()[:4] == ["length", "queries", "measure", "run"]
    assert len(rows) == 4
    assert rows[1].split()[:9] == [
        "0",
        "to",
        "5",
        "6",
        "RR@10",
        "better",
        "1.0000",
        "1.0000",
        "1.0000",
    ]
