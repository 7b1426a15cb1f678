import numpy as np
import pytest
from scipy import stats

from jaxrank.errors import InputError
from jaxrank.evaluation.report import compare_runs

QRELS = {f"q{i}": {"d1": 1} for i in range(4)}
GOOD = {f"q{i}": {"d1": 2.0, "d2": 1.0} for i in range(4)}
BAD = {f"q{i}": {"d1": 1.0, "d2": 2.0} for i in range(3)} | {"x": {"d1": 1.0}}


def test_the_first_run_is_the_baseline_of_all_others() -> None:
    report = compare_runs(QRELS, {"bad": BAD, "good": GOOD, "same": BAD}, ["RR@10"])
    assert report.baseline == "bad"
    assert list(report.tests) == ["good", "same"]
    assert report.tests["good"]["RR@10"].difference == pytest.approx(1 - 1.5 / 4)
    assert report.tests["good"]["RR@10"].wins == 4
    assert report.tests["same"]["RR@10"].ties == 4


def test_missing_and_unjudged_queries_are_noted() -> None:
    notes = "\n".join(compare_runs(QRELS, {"bad": BAD}, ["RR@10"]).notes())
    assert "bad: 1 of 4 queries are not in the run and count 0" in notes
    assert "bad: 1 queries have no judgements and are left out" in notes
    assert compare_runs(QRELS, {"good": GOOD}, ["RR@10"]).notes() == []


def test_per_query_lines_cover_every_query_of_the_qrels() -> None:
    lines = list(compare_runs(QRELS, {"bad": BAD}, ["RR@10"]).per_query_lines())
    assert lines[0] == "run\tmeasure\tquery_id\tvalue"
    assert lines[1] == "bad\tRR@10\tq0\t0.5"
    assert lines[4] == "bad\tRR@10\tq3\t0.0"


def test_an_error_names_the_run() -> None:
    with pytest.raises(InputError, match="run other: the run and the qrels share no query"):
        compare_runs(QRELS, {"good": GOOD, "other": {"x": {"d": 1.0}}}, ["RR@10"])


def test_intervals_are_those_of_students_t() -> None:
    report = compare_runs(QRELS, {"bad": BAD}, ["RR@10", "NumRet"])
    values = [0.5, 0.5, 0.5, 0.0]
    expected = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert report.intervals["bad"]["RR@10"] == pytest.approx(expected)
    assert report.intervals["bad"]["NumRet"] is None  # a sum has no interval of a mean
    assert report.as_json()["runs"]["bad"]["intervals"]["RR@10"] == pytest.approx(list(expected))


def test_a_single_query_has_no_interval() -> None:
    report = compare_runs({"q0": {"d1": 1}}, {"good": GOOD}, ["RR@10"])
    assert report.intervals == {"good": {"RR@10": None}}


def test_p_values_are_corrected_over_the_runs_of_one_measure() -> None:
    runs = {"bad": BAD, "good": GOOD, "same": BAD}
    plain = compare_runs(QRELS, runs, ["RR@10", "R@1"])
    corrected = compare_runs(QRELS, runs, ["RR@10", "R@1"], correction="bonferroni")
    for measure in ("RR@10", "R@1"):
        p = plain.tests["good"][measure].p_t_test
        assert 0 <= plain.p_values["good"][measure].t_test == p < 0.5
        assert corrected.p_values["good"][measure].t_test == pytest.approx(2 * p)
        assert corrected.p_values["same"][measure].t_test == 1.0
    assert corrected.tests == plain.tests
    assert "not corrected for several comparisons" in plain.notes()[-1]
    assert corrected.notes()[-1] == (
        "p values are corrected (bonferroni) over the 2 comparisons of each measure"
    )
    against = corrected.as_json()["runs"]["good"]["against_baseline"]["RR@10"]
    assert against["p_t_test_corrected"] == pytest.approx(2 * against["p_t_test"])
    assert "p_t_test_corrected" not in str(plain.as_json())


def test_queries_without_relevant_documents_count_zero_and_are_noted() -> None:
    qrels = QRELS | {"q4": {"d1": 0}, "q5": {"d1": -2, "d2": -1}}
    report = compare_runs(qrels, {"good": GOOD | {"q5": {"d1": 1.0}}}, ["RR@10", "AP(rel=2)"])
    assert report.evaluations["good"].means["RR@10"] == pytest.approx(4 / 6)
    assert "2 of 6 queries have no document of grade 1 or more" in report.notes()[0]
    assert "6 of 6 queries have no document of grade 2 or more" in report.notes()[1]


def test_recall_deeper_than_the_run_is_noted() -> None:
    notes = compare_runs(QRELS, {"good": GOOD}, ["R@2", "R@100", "AP@100"]).notes()
    assert notes == ["good: 2 documents a query, so R@100 sees no more"]
    notes = compare_runs(QRELS, {"good": GOOD}, ["R@3", "R@100", "R@1000"]).notes()
    assert notes == ["good: 2 documents a query, so R@3, R@100 and R@1000 see no more"]


def test_a_run_that_ends_by_itself_is_no_remark() -> None:
    short = GOOD | {"q1": {"d1": 1.0}}
    assert compare_runs(QRELS, {"short": short}, ["R@100"]).notes() == []
    # One query alone stops at some depth in any case.
    one = compare_runs({"q0": {"d1": 1}}, {"good": GOOD}, ["R@100"])
    assert one.notes() == ["good: 3 queries have no judgements and are left out"]
