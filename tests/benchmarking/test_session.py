"""One call of the command, ended early."""

from pathlib import Path
from typing import Any

import pytest

from jaxrank.benchmarking import session
from jaxrank.benchmarking.options import parse_options
from jaxrank.benchmarking.report import load_report, make_row
from jaxrank.benchmarking.timing import Timing


def test_a_call_that_is_ended_leaves_the_rows_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_two_of_many(cases: Any, *, show: Any, **options: Any) -> None:
        for case in cases[:2]:
            show(make_row(case, "jaxrank", Timing(0.1, 0.1, 0.1, calls=1)))
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "run_benchmarks", run_two_of_many)
    path = tmp_path / "rows.json"
    options = parse_options(["scan", "--sizes", "toy", "--json", str(path)])
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        session.make_report(options, make_texts=lambda options: None, say=said.append)  # type: ignore[arg-type,return-value]
    report = load_report(path)
    assert [row.direction for row in report.rows] == ["forward", "backward"]
    assert report.machine["backend"] == "cpu"
    assert len(said) == 2
