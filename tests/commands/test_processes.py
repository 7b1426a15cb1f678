"""python -m jaxrank.train in two processes of two devices each, which the CPU stands in for."""

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ckpt_convert.load import load
from jaxrank import train
from jaxrank.training.metrics import read_metrics
from jaxrank.training.peers import EXIT_LOST_PROCESS, SILENCE_S
from scripts.device_equality import EXEMPT, Case, start_training, write_recipe

TINY = (
    "--model.overrides={num_layers: 1, hidden_size: 32, num_heads: 2, intermediate_size: 64}",
    "--text.max_length=24",
    "--training.tensorboard=false",
)
TWO_BY_TWO = Case(2, 2, 2)
START_S, END_S = 240, 60
LONG = ("--training.steps=1000000", "--checkpoint.every=5")

Run = list["subprocess.Popen[str]"]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path, steps=4, more=TINY)


@pytest.fixture
def long_run(tmp_path: Path) -> Iterator[Run]:
    """Two processes in the midst of a training without end."""
    processes = start_training(
        write_recipe(tmp_path, steps=4, more=(*TINY, *LONG)), tmp_path / "run", TWO_BY_TWO
    )
    deadline_s = time.monotonic() + START_S
    while not list((tmp_path / "run").glob("checkpoints/step-*")):
        assert time.monotonic() < deadline_s, "no checkpoint"
        if any(process.poll() is not None for process in processes):
            pytest.fail("\n".join(process.communicate()[0] for process in processes))
        time.sleep(0.1)
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def test_two_processes_write_one_run_and_train_the_same_model(tmp_path: Path):
    more = (*TINY, f"--data.token_store={tmp_path / 'tokens'}")
    recipe = write_recipe(tmp_path, steps=4, more=more)
    processes = start_training(recipe, tmp_path / "two", TWO_BY_TWO)
    said = [process.communicate(timeout=START_S)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert "trained 4 steps" in said[0]
    assert "0 of them from disk" in said[0]
    # What is left is gloo's own line.
    assert [line for line in said[1].splitlines() if "[Gloo]" not in line] == []
    in_memory = (f"--training.output={tmp_path / 'one'}", "--data.token_store=null", *TINY)
    train.main(["--config", str(recipe), *in_memory])
    one, two = (
        [line["loss"] for line in read_metrics(tmp_path / name) if "loss" in line]
        for name in ("one", "two")
    )
    np.testing.assert_allclose(two, one, rtol=0, atol=1e-5)
    wanted = load(tmp_path / "one" / "model").parameters
    for name, value in load(tmp_path / "two" / "model").parameters.items():
        if not name.endswith(EXEMPT):
            np.testing.assert_allclose(value, wanted[name], rtol=0, atol=1e-4, err_msg=name)
    about = json.loads((tmp_path / "two" / "run.json").read_text())
    assert (about["status"], about["device"]["count"]) == ("finished", 4)


def test_a_killed_process_ends_the_other_with_one_line(long_run: Run):
    first, second = long_run
    second.send_signal(signal.SIGKILL)
    said = first.communicate(timeout=END_S)[0]
    assert first.returncode == EXIT_LOST_PROCESS
    assert re.search(
        r"error: process 0 of 2 ends: process 1 of the run was lost: .*; the same command goes on "
        "from the last checkpoint",
        said,
    )
    assert "Traceback" not in said
    assert "stack trace" not in said


@pytest.mark.slow
def test_a_killed_first_process_ends_the_other_with_one_line(long_run: Run):
    first, second = long_run
    first.send_signal(signal.SIGKILL)
    said = second.communicate(timeout=END_S)[0]
    assert second.returncode == EXIT_LOST_PROCESS
    assert "process 1 of 2 ends: process 0 of the run was lost" in said


@pytest.mark.slow
def test_a_stopped_process_ends_the_other_in_time(long_run: Run):
    first, second = long_run
    second.send_signal(signal.SIGSTOP)
    start_s = time.monotonic()
    said = first.communicate(timeout=END_S)[0]
    assert time.monotonic() - start_s > SILENCE_S / 2
    assert first.returncode == EXIT_LOST_PROCESS
    assert "process 1 of the run was lost: it said nothing for 30 s" in said


@pytest.mark.slow
def test_an_asked_for_stop_is_agreed_on_and_the_same_command_goes_on(long_run: Run, tmp_path: Path):
    long_run[1].send_signal(signal.SIGTERM)  # one of them is told; both stop at the same step
    said = [process.communicate(timeout=END_S)[0] for process in long_run]
    assert [process.returncode for process in long_run] == [75, 75], said
    assert not (tmp_path / "run" / "model").exists()
    config = write_recipe(tmp_path, steps=4, more=(*TINY, *LONG))
    again = start_training(config, tmp_path / "run", Case(1, 1, 1))
    time.sleep(1)
    deadline_s = time.monotonic() + START_S
    while not json.loads((tmp_path / "run" / "run.json").read_text()).get("resumed"):
        assert time.monotonic() < deadline_s
        assert again[0].poll() is None, again[0].communicate()[0]
        time.sleep(0.1)
    again[0].send_signal(signal.SIGTERM)
    assert "goes on from step" in again[0].communicate(timeout=END_S)[0]


@pytest.mark.slow
def test_an_error_in_one_process_ends_all(tmp_path: Path):
    config = write_recipe(tmp_path, steps=4, more=TINY)
    (tmp_path / "run" / "config.yaml").mkdir(parents=True)  # process 0 alone writes it
    processes = start_training(config, tmp_path / "run", Case(2, 2))
    said = [process.communicate(timeout=START_S)[0] for process in processes]
    assert [process.returncode for process in processes] == [2, 2], said
    assert "process 1 of 2 ends: process 0 failed: " in said[1]


def test_variables_that_do_not_fit_are_one_line(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("JAX_PROCESS_ID", "1")
    with pytest.raises(ValueError, match="JAX_PROCESS_ID: given without JAX_COORDINATOR_ADDRESS"):
        train.main(["--config", str(recipe), f"--training.output={tmp_path / 'run'}", *TINY])
    assert not (tmp_path / "run").exists()
