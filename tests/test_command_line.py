"""A command ends with a status and, if it failed, with one line."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from jaxrank.command_line import run
from jaxrank.errors import InputError, TrainingStoppedError
from jaxrank.training.stopping import Stopping


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (InputError("x.tsv:3: two columns"), 2, "error: x.tsv:3: two columns\n"),
        (OSError(28, "No space left on device", "out.run"), 2, "error: out.run: No space left"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (TrainingStoppedError("stopped after step 3"), 75, "stopped after step 3\n"),
        (None, 0, ""),
    ],
)
def test_exit_statuses(
    error: BaseException | None,
    status: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def main() -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == status
    shown = capsys.readouterr().err
    assert shown.startswith(line)
    assert shown.count("\n") == (status != 0)


def test_a_ctrl_c_that_python_drops_is_sent_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted:
        def __del__(self) -> None:
            raise KeyboardInterrupt

    def main() -> None:
        Interrupted()
        time.sleep(10)
        raise AssertionError("the interrupt is lost")

    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == 130
    assert capsys.readouterr().err.count("\n") == 1


def test_a_stop_that_python_drops_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminated:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0)  # the handler raises here

    def main() -> None:
        with Stopping(lambda line: None) as stopping, stopping.at_once():
            Terminated()
            time.sleep(5)
            raise AssertionError("the stop is lost")

    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == 75
    assert capsys.readouterr().err.startswith("stopped at a milestone")


def test_a_dropped_stop_does_not_kill_a_command_without_a_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Stopped:
        def __del__(self) -> None:
            raise TrainingStoppedError("too late")

    def main() -> None:
        Stopped()
        time.sleep(0.2)

    sent: list[int] = []
    monkeypatch.setattr(signal, "pthread_kill", lambda thread, number: sent.append(number))
    with pytest.raises(SystemExit) as caught:
        run(main)
    assert (caught.value.code, sent) == (0, [])


def test_output_that_cannot_be_written_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs Linux")
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as caught:
            run(lambda: full.write("result"))
        assert caught.value.code == 2
    shown = capsys.readouterr().err
    assert shown == "error: standard output: No space left on device\n"
