"""The script that checks a GPU, at toy sizes without one."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "gpu_check.py"


@pytest.fixture
def gpu_check(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_check", module)  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def test_a_check_gives_comparisons_and_measurements(gpu_check: ModuleType):
    rows = gpu_check.run_checks(["norms_and_dropout"], gpu_check.TOY_SIZES)
    assert all(row.ok for row in rows)
    assert {row.check for row in rows} == {"norms", "dropout"}
    assert any(row.measured.get("ms", 0.0) > 0.0 for row in rows)


def test_a_wrong_value_and_an_exception_are_failed_rows(
    gpu_check: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    def broken(sizes: object) -> Iterator[object]:
        yield gpu_check.compared("broken", "value", {"y": float("nan")}, 1e-5)
        raise RuntimeError("out of memory\nwith a long trace")

    monkeypatch.setitem(gpu_check.CHECKS, "broken", broken)
    rows = gpu_check.run_checks(["broken"], gpu_check.TOY_SIZES)
    assert [(row.case, row.ok) for row in rows] == [("value", False), ("stopped", False)]
