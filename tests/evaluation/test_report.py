from pathlib import Path

import pytest

from jaxrank.errors import InputError
from jaxrank.evaluation.report import compare_runs, name_runs, render_table

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


def test_the_table_shows_means_differences_and_wins() -> None:
    report = compare_runs(QRELS, {"bad": BAD, "good": GOOD}, ["RR@10", "R@1"])
    header, rule, *rows = report.table().splitlines()
    assert len(rows) == 4
    assert set(rule) == {"-"}
    assert header.split("  ")[0] == "measure"
    assert rows[0].split() == ["RR@10", "bad", "0.3750"]
    assert rows[1].split()[:4] == ["RR@10", "good", "1.0000", "+0.6250"]
    assert rows[1].endswith("4/0/0")
    assert len({len(row) for row in (header, rows[1], rows[3])}) == 1


def test_one_run_gets_means_only() -> None:
    table = compare_runs(QRELS, {"good": GOOD}, ["RR@10"]).table()
    assert table.splitlines()[0].split() == ["measure", "run", "mean"]


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


def test_runs_are_named_by_file_where_that_tells_them_apart() -> None:
    a, b = Path("x/bm25.test.run"), Path("x/new.run.gz")
    assert name_runs([a, b]) == {"bm25.test": a, "new": b}
    assert list(name_runs([a, b], baseline=b)) == ["new", "bm25.test"]
    assert list(name_runs([Path("x/a.run"), Path("y/a.run")])) == ["x/a.run", "y/a.run"]


def test_a_foreign_baseline_and_repeated_runs_are_refused() -> None:
    a, b = Path("a.run"), Path("b.run")
    with pytest.raises(InputError, match=r"b\.run is not among the runs; name one of a\.run"):
        name_runs([a], baseline=b)
    with pytest.raises(InputError, match="none twice"):
        name_runs([a, a])
    with pytest.raises(InputError, match="at least one"):
        name_runs([])


def test_text_is_flush_left_and_numbers_flush_right() -> None:
    table = render_table(("run", "mean"), [("a", "0.5"), ("longer", "10.25")])
    assert table.splitlines() == [
        "run      mean", "-------------", "a         0.5", "longer  10.25"
    ]  # fmt: skip
