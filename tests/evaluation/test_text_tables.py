from jaxrank.evaluation.report import compare_runs
from jaxrank.evaluation.text_tables import comparison_table, render_table

QRELS = {f"q{i}": {"d1": 1} for i in range(4)}
GOOD = {f"q{i}": {"d1": 2.0, "d2": 1.0} for i in range(4)}
BAD = {f"q{i}": {"d1": 1.0, "d2": 2.0} for i in range(3)} | {"x": {"d1": 1.0}}


def test_the_table_shows_means_differences_and_wins() -> None:
    report = compare_runs(QRELS, {"bad": BAD, "good": GOOD}, ["RR@10", "R@1"])
    header, rule, *rows = comparison_table(report).splitlines()
    assert len(rows) == 4
    assert set(rule) == {"-"}
    assert header.split("  ")[0] == "measure"
    assert rows[0].split() == ["RR@10", "bad", "0.3750"]
    assert rows[1].split()[:4] == ["RR@10", "good", "1.0000", "+0.6250"]
    assert rows[1].endswith("4/0/0")
    assert len({len(row) for row in (header, rows[1], rows[3])}) == 1


def test_one_run_gets_means_and_their_intervals_only() -> None:
    table = comparison_table(compare_runs(QRELS, {"good": GOOD}, ["RR@10"]))
    assert table.splitlines()[0].split() == ["measure", "run", "mean", "95%", "interval"]


def test_corrected_p_values_stand_in_the_table_and_its_header_says_so() -> None:
    runs = {"bad": BAD, "good": GOOD, "again": GOOD}
    report = compare_runs(QRELS, runs, ["RR@10"], correction="bonferroni")
    header, _, _, good, _ = comparison_table(report).splitlines()
    assert "p (t-test, bonferroni)" in header
    assert "p (permutation, bonferroni)" in header
    assert f"{2 * report.tests['good']['RR@10'].p_t_test:.4f}" == good.split()[-3]


def test_text_is_flush_left_and_numbers_flush_right() -> None:
    table = render_table(("run", "mean"), [("a", "0.5"), ("longer", "10.25")])
    assert table.splitlines() == [
        "run      mean", "-------------", "a         0.5", "longer  10.25"
    ]  # fmt: skip
