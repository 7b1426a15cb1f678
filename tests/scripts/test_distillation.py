"""The summary of the distillation experiment, on values whose statistics are known."""

import numpy as np
import pytest

from scripts.distillation import summarise, table

BASELINE = np.array([[0.0, 1.0, 0.5, 0.5], [0.0, 1.0, 0.0, 0.0]])


def test_differences_are_taken_seed_by_seed_and_question_by_question():
    found = summarise({"info_nce": BASELINE, "margin_mse": BASELINE[:1] + 0.25})
    assert found["info_nce"]["mean"] == 0.375
    assert found["info_nce"]["seeds"] == [0.5, 0.25]
    assert found["info_nce"]["deviation_over_seeds"] == pytest.approx(0.25 / 2**0.5)
    assert "difference" not in found["info_nce"]
    difference = found["margin_mse"]["difference"]
    assert difference["mean"] == 0.25
    assert difference["interval"] == [0.25, 0.25], "the same gain on every question leaves no doubt"
    assert difference["deviation_over_seeds"] is None


def test_the_interval_is_that_of_means_over_other_questions():
    values = np.random.default_rng(0).normal(0.5, 0.2, (3, 400))
    found = summarise({"ranknet": values})["ranknet"]
    error = values.mean(axis=0).std(ddof=1) / 400**0.5
    expected = [found["mean"] - 1.96 * error, found["mean"] + 1.96 * error]
    np.testing.assert_allclose(found["interval"], expected, atol=0.1 * error)


def test_the_table_has_a_row_for_each_order():
    students = summarise({"info_nce": BASELINE, "ranknet": BASELINE + 0.125})
    rows = table({"bm25": 0.5, "teacher": 0.75, "students": students})
    assert rows[2:4] == ["| bm25 | 0.500 | | | |", "| teacher | 0.750 | | | |"]
    assert rows[4].startswith("| info_nce | 0.375 (")
    assert rows[5].endswith("| +0.125 (+0.125 to +0.125) | +0.125 +0.125 |")
    assert len({row.count("|") for row in rows}) == 1
