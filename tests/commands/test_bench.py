"""The command from its options to its files, at toy sizes."""

import sys
import types
from pathlib import Path

import pytest

from jaxrank.bench import main
from jaxrank.benchmarking.report import LEGEND, load_report
from jaxrank.benchmarking.rivals import RivalMissingError
from jaxrank.errors import InputError

QUICK = ["--warmup", "1", "--repeats", "1", "--least-s", "0"]


@pytest.fixture(autouse=True)
def compilation_cache_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command changes a setting of the process and its environment; later tests get both."""
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def test_the_command_measures_writes_and_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(case: object) -> None:
        raise RivalMissingError("is not built")

    plug_in = types.ModuleType("toy_rivals")
    plug_in.RIVALS = {"other": missing}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "toy_rivals", plug_in)
    json, png = tmp_path / "a.json", tmp_path / "a.png"
    arguments = ["attention", "--lengths", "16", "--sizes", "toy", "--directions", "forward"]
    main([*arguments, *QUICK, "--against", "toy_rivals", "--json", str(json)])
    printed = capsys.readouterr()
    assert printed.err.count("other: left out of attention, is not built\n") == 1
    assert "4 x 16, causal, 2 heads of 64, float32" in printed.out
    report = load_report(json)
    assert [row.direction for row in report.rows] == ["forward"] * 2
    assert report.machine["versions"]["jax"]
    assert {"backend", "device", "source", "time"} <= report.machine.keys()
    assert "attention" in table_of(capsys, json, png)
    assert png.read_bytes()[:4] == b"\x89PNG"


def table_of(capsys: pytest.CaptureFixture[str], json: Path, png: Path) -> str:
    """What `--from` prints of a file; it measures nothing."""
    main(["--from", str(json), str(json), "--plot", str(png)])
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 2 + 2 * 2 + 1 + len(LEGEND.splitlines()) + 1
    return out


def test_scores_are_a_rate(tmp_path: Path) -> None:
    json = tmp_path / "a.json"
    main(["score", "--sizes", "toy", *QUICK, "--json", str(json)])
    (row,) = load_report(json).rows
    assert row.shape == "bert-tiny, 4 x 16"
    assert row.pairs_per_s == pytest.approx(4e3 / row.median_ms)
    assert row.peak_source == "compiler"
    assert row.parameters == 2_053_441


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scn"], "subject: 'scn' is unknown"),
        (["scan", "--implementation", "msaic"], "'msaic' is no implementation of selective_scan"),
        (["scan", "--implementation", "mosaic"], "'mosaic' needs an NVIDIA GPU"),
        (["attention", "--implementation", "auto", "cudnn"], "'cudnn' needs an NVIDIA GPU"),
        (
            ["train", "--presets", "mamba-tiny", "bert-tiny", "--implementation", "mosaic"],
            "'mosaic' is no implementation of attention, which train of bert-tiny uses",
        ),
        (["scan", "--lora", "4"], "--lora: does nothing without train"),
        (["scan", "--rivals", "a"], "--rivals: does nothing without --against"),
        (["scan", "--collection", "c"], "--collection: does nothing without --model"),
        (["scan", "--pairs", "512"], "--pairs: does nothing without --model"),
        (["--model", "m", "--collection", "c", "--lengths", "4"], "--lengths: does nothing with"),
        (["--model", "m", "--collection", "c", "--tokens", "4"], "--tokens: does nothing with"),
        (["scan", "--model", "m"], "--model: got the subject 'scan' beside it"),
        (["scan", "--against", "no.such"], "--against: no.such cannot be imported"),
        (["scan", "--dtype", "int8"], "invalid choice: 'int8'"),
        (["scan", "--warmup", "0"], "--warmup: got 0"),
        (["--model", "folder"], "--model: needs --collection"),
        (["--from", "missing.json"], "missing.json: no such file"),
    ],
)
def test_bad_words_are_refused_in_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        main(arguments)
    assert message in str(caught.value)


def test_the_command_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    from jaxrank.__main__ import main as list_commands

    list_commands([])
    assert "python -m jaxrank.bench:" in capsys.readouterr().out
