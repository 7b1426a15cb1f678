"""Weights & Biases, by a stand-in for its package: what it is told, and what it cannot break."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jaxrank.errors import InputError
from jaxrank.training.metrics import MetricsLog, read_metrics
from jaxrank.training.wandb_sink import WandbSink, check_wandb


class FakeRun:
    """A run that keeps what it is told."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.offline = options["settings"].get("mode") == "offline"
        self.url = "https://wandb.test/p/runs/1"
        self.lines: list[dict[str, float]] = []
        self.steps: list[tuple[str, str | None]] = []
        self.is_finished = False
        self.breaks = False

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self.steps.append((name, step_metric))

    def log(self, values: dict[str, float]) -> None:
        if self.breaks:
            raise ConnectionError("the line is dead")
        self.lines.append(values)

    def finish(self) -> None:
        self.is_finished = True


class FakeWandb:
    """The package: somebody is logged in or not, and starting online may fail."""

    def __init__(self) -> None:
        self.is_logged_in = True
        self.online_error: Exception | None = None
        self.offline_error: Exception | None = None
        self.runs: list[FakeRun] = []

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def login(*, prompt: bool) -> bool:
            assert not prompt
            return self.is_logged_in

        def init(**options: Any) -> FakeRun:
            is_offline = options["settings"].get("mode") == "offline"
            error = self.offline_error if is_offline else self.online_error
            if error is not None:
                raise error
            self.runs.append(FakeRun(options))
            return self.runs[-1]

        module = SimpleNamespace(Settings=dict, login=login, init=init, teardown=lambda: None)
        monkeypatch.setitem(sys.modules, "wandb", module)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.delenv("WANDB_MODE", raising=False)
    fake.install(monkeypatch)
    return fake


def open_sink(folder: Path, say: Callable[[str], None] = print) -> WandbSink:
    return WandbSink("rerankers", folder, config={"optimizer": {"learning_rate": 1e-4}}, say=say)


def test_wandb_gets_the_same_metrics_with_config_and_name(wandb: FakeWandb, tmp_path: Path):
    said: list[str] = []
    folder = tmp_path / "minilm"
    with MetricsLog(folder, tensorboard=False, more=[open_sink(folder, said.append)]) as log:
        log.log(10, {"loss": 1.5})
        log.log(20, {"dev/RR@10": 0.75})
    (run,) = wandb.runs
    assert run.options["project"] == "rerankers"
    assert run.options["name"] == "minilm"
    assert run.options["dir"] == str(folder)
    assert run.options["config"]["optimizer"] == {"learning_rate": 1e-4}
    assert run.options["config"]["run_folder"] == str(folder)
    assert run.steps == [("step", None), ("*", "step")]
    assert run.lines == [
        {name: value for name, value in line.items() if name != "time_s"}
        for line in read_metrics(folder)
    ]
    assert run.is_finished
    assert said == ["training.wandb: https://wandb.test/p/runs/1"]


def test_a_resumed_run_goes_on_under_its_id(wandb: FakeWandb, tmp_path: Path):
    for folder in (tmp_path / "a", tmp_path / "a", tmp_path / "b"):
        open_sink(folder).close()
    first, again, other = (run.options["id"] for run in wandb.runs)
    assert first == again != other
    assert {run.options["resume"] for run in wandb.runs} == {"allow"}


@pytest.mark.parametrize("is_logged_in", [True, False])
def test_without_network_or_login_the_run_is_offline_under_the_same_id(
    wandb: FakeWandb, tmp_path: Path, is_logged_in: bool
):
    wandb.is_logged_in = is_logged_in
    wandb.online_error = ConnectionError("no such host\nand more")
    said: list[str] = []
    sink = open_sink(tmp_path, said.append)
    sink.log(1, {"loss": 1.0})
    (run,) = wandb.runs
    assert run.offline
    assert run.lines == [{"step": 1, "loss": 1.0}]
    reason = "no such host" if is_logged_in else "nobody is logged in; `wandb login` does that"
    assert said == [
        f"training.wandb: offline ({reason}); send the metrics later with "
        f"`wandb sync {tmp_path}/wandb/offline-run-*`"
    ]


def test_a_mode_that_the_user_chose_stands(
    wandb: FakeWandb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    wandb.is_logged_in = False
    monkeypatch.setenv("WANDB_MODE", "disabled")
    open_sink(tmp_path)
    assert "mode" not in wandb.runs[0].options["settings"]


def test_wandb_that_cannot_even_start_offline_is_left_out(wandb: FakeWandb, tmp_path: Path):
    wandb.online_error, wandb.offline_error = ConnectionError("dead"), RuntimeError("no core")
    said: list[str] = []
    sink = open_sink(tmp_path, said.append)
    sink.log(1, {"loss": 1.0})
    sink.close()
    assert said == ["training.wandb: not used, since it cannot be started (no core)"]


def test_wandb_that_fails_later_ends_with_a_warning_and_training_goes_on(
    wandb: FakeWandb, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with MetricsLog(tmp_path, tensorboard=False, more=[open_sink(tmp_path)]) as log:
        for step in (1, 2, 3):
            wandb.runs[0].breaks = step > 1
            log.log(step, {"loss": 1.0})
    assert len(read_metrics(tmp_path)) == 3
    assert len(wandb.runs[0].lines) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "wandb gets no more metrics: ConnectionError: the line is dead"
    ]


def test_a_machine_without_the_package_is_told_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"training.wandb: .*pip install 'jaxrank\[wandb\]'"):
        check_wandb("rerankers")


@pytest.mark.parametrize("project", ["", " ", "team/project", "a" * 129])
def test_a_name_that_no_project_can_have_is_refused(wandb: FakeWandb, project: str):
    check_wandb("rerankers")
    with pytest.raises(InputError, match=r"training.wandb: got .*WANDB_ENTITY"):
        check_wandb(project)
