"""The command that checks a GPU: its options and its exit status."""

import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from scripts.gpu_check import __main__ as gpu_check
from scripts.gpu_check.processes import Ended
from scripts.gpu_check.rows import Row

MACHINE = {"device": "cpu", "versions": {"jax": "1"}, "source": None}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--minutes", "0"], "error: --minutes: got 0.0; more than 0"),
        (["--only", "sdd"], "error: --only: 'sdd' is no check; known are mosaic_scan"),
    ],
)
def test_wrong_options_are_one_line(
    options: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--cpu", *options])
    with pytest.raises(SystemExit) as ended:
        gpu_check.main()
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(said)
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(("ok", "status"), [(True, 0), (None, 3), (False, 1)])
def test_where_nothing_was_checked_the_status_says_so(
    ok: bool | None, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def start(self: object, name: str, *, without_mosaic: bool = False) -> Ended:
        row = asdict(Row(name, "all", ok=ok))
        return Ended([{**MACHINE, "backend": "cpu"}] if name == "machine" else [row], "")

    monkeypatch.setattr(gpu_check.Runner, "start", start)
    command = ["gpu_check", "--cpu", "--json", str(tmp_path / "a.json"), "--only", "mosaic_scan"]
    monkeypatch.setattr(sys, "argv", command)
    assert gpu_check.main() == status
