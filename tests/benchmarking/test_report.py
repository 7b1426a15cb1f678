"""Rows there and back, the table, the picture."""

import builtins
from pathlib import Path
from typing import Any

import pytest

from jaxrank.benchmarking.cases import Case, ModelShape, ScanShape
from jaxrank.benchmarking.plot import plot_rows
from jaxrank.benchmarking.report import (
    OUT_OF_MEMORY,
    Report,
    load_report,
    make_row,
    merge_reports,
    table,
)
from jaxrank.benchmarking.timing import Timing
from jaxrank.errors import InputError

SCAN = Case("scan", ScanShape(64, 512, 1536), "forward", "bfloat16")
TRAIN = Case("train", ModelShape("bert-base", 32, 512, 8), "step", "bfloat16")
TIMING = Timing(
    0.002, 0.0015, 0.0025, calls=7, compile_s=1.5, temporary_bytes=2**20,
    peak_bytes=3 * 2**20, peak_source="device",
)  # fmt: skip
ROWS = (
    make_row(SCAN, "jaxrank mosaic", TIMING, floor_ms=0.5, floor_share=0.25),
    make_row(SCAN, "mamba_ssm", TIMING, speed_of_ours=1.5, difference=2e-3),
    make_row(TRAIN, "jaxrank", TIMING),
    make_row(TRAIN, "transformers", failed=OUT_OF_MEMORY),
)


def test_a_report_comes_back_as_it_was_written(tmp_path: Path) -> None:
    report = Report(ROWS, {"device": "cpu"}, "python -m jaxrank.bench")
    report.save(tmp_path / "a.json")
    assert load_report(tmp_path / "a.json") == report
    assert merge_reports([report, report]).rows == ROWS + ROWS


def test_the_table_has_every_row_and_says_what_failed() -> None:
    lines = table(ROWS).splitlines()
    assert len(lines) == 2 + len(ROWS)
    assert len({len(line) for line in lines}) == 1
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[2][2:6] == ["jaxrank mosaic", "2 (1.5-2.5)", "0.5", "25%"]
    assert cells[3][9:] == ["1.50x", "differs by 2e-03"]
    assert cells[4][6:8] == ["16,000.0", "3 d"]  # 32 pairs in 2 ms
    assert cells[5][3] == "-"
    assert cells[5][10] == "out of memory"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "is no report"),
        ('{"format": "jaxrank.bench 1"}', "not as --json writes it"),
        (
            '{"format": "jaxrank.bench 1", "rows": [{"x": 1}], "machine": {}, "command": ""}',
            "'subject'|'x'",
        ),
    ],
)
def test_another_file_is_refused_by_name(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load_report(path)
    assert str(path) in str(caught.value)


def test_the_picture_has_a_panel_for_each_subject_and_one_for_memory(tmp_path: Path) -> None:
    plot_rows(ROWS, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(InputError, match="nothing was measured"):
        plot_rows(ROWS[3:], tmp_path / "b.png")


def test_empty_frames_are_hidden_and_what_has_no_value_is_not_in_the_legend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    figures: list[Figure] = []
    original = Figure.subplots
    monkeypatch.setattr(
        Figure, "subplots", lambda self, *a, **b: (figures.append(self), original(self, *a, **b))[1]
    )
    score = Case("score", ModelShape("bert-base", 32, 512), "forward", "bfloat16")
    unweighed = make_row(TRAIN, "other", Timing(0.002, 0.002, 0.002, calls=1))
    plot_rows([*ROWS, unweighed, make_row(score, "jaxrank", TIMING)], tmp_path / "a.png")
    axes = figures[0].axes
    assert [frame.axison for frame in axes] == [True] * 4 + [False] * 2
    assert axes[3].get_legend_handles_labels()[1] == ["bert-base, jaxrank"]


def test_without_matplotlib_the_mend_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def refuse(name: str, *arguments: Any, **options: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(InputError, match="--from FILE --plot FILE"):
        plot_rows(ROWS, tmp_path / "a.png")
