"""The script that checks a GPU, at toy sizes without one."""

from collections.abc import Iterator

import pytest

from scripts.gpu_check import __main__ as gpu_check
from scripts.gpu_check.resume import CHECKPOINT_STEP
from scripts.gpu_check.rows import TOY_SIZES, compared


def test_a_check_gives_comparisons_and_measurements():
    rows = gpu_check.run_checks(["norms_and_dropout"], TOY_SIZES)
    assert all(row.ok for row in rows)
    assert {row.check for row in rows} == {"norms", "dropout"}
    assert any(row.measured.get("ms", 0.0) > 0.0 for row in rows)


def test_a_wrong_value_and_an_exception_are_failed_rows(monkeypatch: pytest.MonkeyPatch):
    def broken(sizes: object) -> Iterator[object]:
        yield compared("broken", "value", {"y": float("nan")}, 1e-5)
        raise RuntimeError("out of memory\nwith a long trace")

    monkeypatch.setitem(gpu_check.CHECKS, "broken", broken)
    rows = gpu_check.run_checks(["broken"], TOY_SIZES)
    assert [(row.case, row.ok) for row in rows] == [("value", False), ("stopped", False)]


@pytest.mark.slow
def test_a_killed_training_ends_with_the_same_bits():
    rows = gpu_check.run_checks(["resume"], TOY_SIZES)
    assert [row.ok for row in rows] == [True, True, True]
    assert rows[0].measured["first_step"] >= CHECKPOINT_STEP
    assert rows[2].measured["ratio"] > 0


def test_training_falls_at_toy_sizes():
    rows = gpu_check.run_checks(["training"], TOY_SIZES)
    assert {row.ok for row in rows} == {True}
    assert all(row.measured["loss_after"] < row.measured["loss_before"] for row in rows)
