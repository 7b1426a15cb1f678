"""The throughput study goes on where it was ended, and records what cannot be measured."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jaxrank.benchmarking.cases import Case, ModelShape, find_preset
from jaxrank.benchmarking.report import Report, load_report, make_row
from jaxrank.benchmarking.timing import Timing
from scripts.bench_throughput.__main__ import main
from scripts.bench_throughput.parts import GROUPS, Part, plan_parts

ROOT = Path(__file__).resolve().parents[2]


class Machine:
    """Stands for the processes of the parts; `fate` says how one ends."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.fate: dict[str, str] = {}

    def run(self, command: list[str], *, timeout: float, **options: Any) -> Any:
        target = Path(command[command.index("--json") + 1])
        self.started.append(target.stem)
        fate = self.fate.get(target.stem, "well")
        if fate == "late":
            raise subprocess.TimeoutExpired(command, timeout)
        if fate == "killed" or (fate == "killed with rivals" and "--against" in command):
            return subprocess.CompletedProcess(command, -signal.SIGKILL, stderr="")
        if fate == "refused":
            return subprocess.CompletedProcess(command, 2, stderr="note\nerror: no such device\n")
        subject, preset, length = (
            *target.stem.rsplit("-", 1)[0].split("-", 1),
            target.stem[-2:],
        )
        direction = "step" if subject == "train" else "forward"
        case = Case(subject, ModelShape(preset, 4, int(length)), direction, "float32")
        rows = (make_row(case, "jaxrank", Timing(0.1, 0.1, 0.1, calls=1)),)
        Report(rows, {"device": "a CPU"}).save(target)
        return subprocess.CompletedProcess(command, 0, stderr="")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    fake = Machine()
    monkeypatch.setattr(subprocess, "run", fake.run)
    monkeypatch.setattr(sys, "argv", ["bench_throughput", "--toy", "--output", str(tmp_path)])
    return fake


def test_every_preset_exists_and_short_texts_come_first() -> None:
    for presets in GROUPS.values():
        for preset in presets:
            find_preset(preset)
    parts = plan_parts(["130m", "700m"], [512, 8192])
    assert len(parts) == 2 * 2 * (8 + 4)
    assert {part.length for part in parts[: len(parts) // 2]} == {512}


def test_only_the_large_models_train_adapters(tmp_path: Path) -> None:
    large = Part("700m", "pythia-1b", 512, "train")
    assert "--lora" in large.arguments(tmp_path, against=None, more=[])
    for part in (Part("700m", "pythia-1b", 512, "score"), Part("370m", "bert-large", 512, "train")):
        assert "--lora" not in part.arguments(tmp_path, against=None, more=[])


def test_a_second_run_does_only_what_the_first_did_not(machine: Machine, tmp_path: Path) -> None:
    assert main() == 0
    assert len(machine.started) == 8
    (tmp_path / "score-bert-tiny-32.json").unlink()
    assert main() == 0
    assert machine.started[8:] == ["score-bert-tiny-32"]
    assert len(load_report(tmp_path / "throughput.json").rows) == 8
    assert (tmp_path / "throughput-toy.png").read_bytes()[:4] == b"\x89PNG"


def test_a_part_that_fails_is_a_row_and_is_not_tried_again(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.fate = {
        "train-mamba-tiny-16": "killed",
        "train-bert-tiny-16": "late",
        "score-bert-tiny-16": "refused",
    }
    assert main() == 1
    assert "error: no such device" in capsys.readouterr().out
    machine.fate = {}
    assert main() == 1
    assert machine.started[8:] == ["score-bert-tiny-16"], "any other failure is tried again"
    failed = {row.failed for row in load_report(tmp_path / "throughput.json").rows}
    assert failed == {None, "out of memory", "not done in 460 s"}
    assert load_report(tmp_path / "throughput.json").machine == {"device": "a CPU"}
    assert "out of memory" in capsys.readouterr().out


def test_rivals_that_end_the_process_do_not_take_ours_with_them(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--against", "a.module"])
    machine.fate = {"train-mamba-tiny-16": "killed with rivals"}
    assert main() == 0
    assert machine.started[:2] == ["train-mamba-tiny-16"] * 2
    assert len(load_report(tmp_path / "throughput.json").rows) == 8


def test_results_travel_in_one_file(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = tmp_path / "packed" / "all.json"
    command = ["bench_throughput", "--toy", "--packed", str(packed), "--output"]
    monkeypatch.setattr(sys, "argv", [*command, str(tmp_path / "one")])
    assert main() == 0
    monkeypatch.setattr(sys, "argv", [*command, str(tmp_path / "other")])
    assert main() == 0
    assert len(machine.started) == 8
    assert len(load_report(tmp_path / "other" / "throughput.json").rows) == 8


def test_a_study_whose_time_is_over_leaves_its_last_part_undone(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.fate = {"score-mamba-tiny-16": "late"}
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--minutes", "1"])
    assert main() == 1
    assert machine.started == ["train-mamba-tiny-16", "score-mamba-tiny-16"]
    assert not (tmp_path / "score-mamba-tiny-16.json").exists()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--lengths", "0"], "error: --lengths: got 0; more than 0"),
        (["--minutes", "0"], "error: --minutes: got 0.0; more than 0"),
        (["--minutes", "-1"], "error: --minutes: got -1.0; more than 0"),
    ],
)
def test_a_number_that_cannot_be_one_starts_nothing(
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: list[str],
    said: str,
) -> None:
    monkeypatch.setattr(sys, "argv", [*sys.argv, *option])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(said)
    assert not machine.started


def test_full_sizes_without_a_gpu_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setattr(sys, "argv", ["bench_throughput", "--output", str(tmp_path)])
    assert main() == 2
    assert "jax sees no GPU (backend 'cpu')" in (said := capsys.readouterr().err)
    assert "--toy" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_script_runs_at_toy_sizes(tmp_path: Path) -> None:
    script = ["bash", str(ROOT / "scripts" / "bench_throughput.sh"), "--toy"]
    result = subprocess.run(
        [*script, "--output", str(tmp_path)], check=False, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr + result.stdout
    rows = load_report(tmp_path / "throughput.json").rows
    assert len(rows) == 8
    assert all(row.pairs_per_s for row in rows)
