"""The loop: what is logged, saved and measured when, and what stops it."""

import doctest
import os
import signal
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrank.errors import InputError, TrainingStoppedError
from jaxrank.training import loop
from jaxrank.training.loop import LoopConfig, check_finite, spread_milestones, train
from jaxrank.training.step import TrainState
from jaxrank.training.stopping import Stopping
from tests.training.loop_recorder import Recorder, make_batches, make_state, make_step, run_loop


def test_milestones_are_logged_measured_and_saved_in_order():
    recorder = Recorder()
    state = run_loop(recorder, make_step())
    assert int(state.step) == 6
    assert recorder.events == [
        ("log", 2), ("log", 4), ("dev", 4), ("save", 4), ("log", 6), ("dev", 6), ("save", 6)
    ]  # fmt: skip


def test_a_line_of_metrics_is_the_mean_over_its_steps():
    recorder = Recorder()
    run_loop(recorder, make_step())
    lines = [values for values in recorder.values if "loss" in values]
    assert [line["loss"] for line in lines] == [1.5, 3.5, 5.5]
    np.testing.assert_allclose([line["learning_rate"] for line in lines], [0.2, 0.4, 0.6], 1e-6)
    for line in lines:
        assert line.keys() == {
            "loss", "gradient_norm", "group_accuracy", "learning_rate", "pairs_per_s",
            "tokens_per_s", "skipped",
        }  # fmt: skip
        np.testing.assert_allclose(line["tokens_per_s"] / line["pairs_per_s"], 4)


def test_training_goes_on_from_the_step_of_its_state():
    recorder = Recorder()
    run_loop(recorder, make_step(), state=make_state(step=3))
    assert recorder.events[0] == ("log", 4)
    assert recorder.values[0]["loss"] == 4.0


@pytest.mark.parametrize("bad", [1, 3, 4, 6])
def test_losses_that_are_not_finite_end_it_with_step_and_groups(bad: int):
    recorder = Recorder()
    with pytest.raises(InputError) as error:
        run_loop(recorder, make_step({bad: float("nan")}), max_skipped_steps=1)
    groups = f"groups {2 * (bad - 1)}, {2 * (bad - 1) + 1} "
    assert str(error.value).startswith(f"step {bad}: loss is nan on {groups}")
    assert "\n" not in str(error.value)
    assert all(kind != "save" or step < bad for kind, step in recorder.events)


def test_a_gradient_that_is_not_finite_counts_too():
    with pytest.raises(
        InputError, match=r"step 3: gradient_norm is inf on groups 4, 5 .*2 steps be"
    ):
        run_loop(Recorder(), make_step(gradient_norm=float("inf")), max_skipped_steps=3)


def test_a_skipped_step_is_told_counted_and_leaves_no_trace_in_the_means():
    recorder = Recorder()
    losses = {3: float("nan"), 5: float("inf"), 6: float("nan")}
    run_loop(recorder, make_step(losses), max_skipped_steps=3)
    lines = [values for values in recorder.values if "loss" in values]
    assert [line["skipped"] for line in lines] == [0, 1, 2]
    assert [line["loss"] for line in lines[:2]] == [1.5, 4.0]
    assert np.isnan(lines[2]["loss"])
    assert lines[2]["tokens_per_s"] > 0
    # Told at the first of each row, and counted at the end.
    assert [line.split(":")[0] for line in recorder.said[:2]] == ["step 3", "step 5"]
    assert recorder.said[2] == "3 steps were skipped: loss or gradient was not finite"


def test_an_overflow_above_the_smallest_loss_scale_is_no_failure():
    recorder = Recorder()
    losses = dict.fromkeys(range(1, 6), float("inf"))
    run_loop(recorder, make_step(losses, loss_scale=2.0), max_skipped_steps=1)
    assert recorder.said == ["5 steps were skipped for float16's range"]
    assert recorder.values[0]["loss_scale"] == 2.0
    with pytest.raises(InputError, match="step 1"):
        run_loop(Recorder(), make_step(losses, loss_scale=1.0), max_skipped_steps=1)


@pytest.mark.parametrize("part", ["parameters", "optimizer_state"])
def test_a_state_that_is_not_finite_is_never_saved(part: str):
    bad = make_state()._replace(**{part: {"head": {"bias": jnp.array([1.0, jnp.inf])}}})
    with pytest.raises(InputError, match=f"step 4: {part}/head/bias is not finite"):
        check_finite(4, bad)

    def step(state: TrainState, batch: Any) -> Any:
        state, metrics = make_step()(state, batch)
        return state._replace(**{part: getattr(bad, part)}), metrics

    recorder = Recorder()
    with pytest.raises(InputError, match="is not finite"):
        run_loop(recorder, step, save_checkpoint=recorder.save_checkpoint)
    assert {kind for kind, _ in recorder.events} == {"log"}


@pytest.mark.parametrize(
    ("spreads", "warned_at"),
    [
        ([1.0, 1.0, 0.5, 0.5, 0.005, 0.005, 0.0, 0.0], 6),
        ([1e-7] * 8, 2),
        ([1.0, 1.0, 0.02, 0.02, 3.0, 3.0, 0.2, 0.2], None),
    ],
)
def test_scores_that_stop_varying_are_told_once(spreads: list[float], warned_at: int | None):
    def step(state: TrainState, batch: Any) -> Any:
        return make_step(score_spread=spreads[int(state.step)])(state, batch)

    recorder = Recorder()
    run_loop(recorder, step, total_steps=8)
    expected = [] if warned_at is None else [f"step {warned_at}"]
    assert [line.split(":")[0] for line in recorder.said] == expected


def test_checkpoints_come_before_what_their_step_logs():
    recorder = Recorder()
    run_loop(recorder, make_step(), save_checkpoint=recorder.save_checkpoint, checkpoint_every=3)
    assert recorder.events == [
        ("log", 2), ("checkpoint", 3), ("checkpoint", 4), ("log", 4), ("dev", 4), ("save", 4),
        ("checkpoint", 6), ("log", 6), ("dev", 6), ("save", 6),
    ]  # fmt: skip


@pytest.mark.parametrize("interrupted_at", [3, 4, 6])
def test_a_resumed_loop_logs_and_saves_what_an_uninterrupted_one_does(interrupted_at: int):
    whole, resumed = Recorder(), Recorder()
    step = make_step({2: float("nan"), 3: 0.1, 5: float("nan")})
    options = {"checkpoint_every": 3, "log_every": 4}
    run_loop(whole, step, save_checkpoint=whole.save_checkpoint, **options)
    state = make_state(interrupted_at)._replace(parameters={"weight": jnp.float32(interrupted_at)})
    run_loop(resumed, step, state=state, resume=whole.checkpoints[interrupted_at], **options)
    later = [
        (kind, step)
        for kind, step in whole.events
        if step >= interrupted_at and kind != "checkpoint"
    ]
    assert resumed.events == later
    np.testing.assert_array_equal(resumed.losses(), whole.losses()[-len(resumed.losses()) :])
    assert resumed.said[-1] == whole.said[-1]


def test_a_signal_stops_at_the_step_boundary_with_a_checkpoint():
    recorder = Recorder()

    def step(state: TrainState, batch: Any) -> Any:
        if int(state.step) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return make_step()(state, batch)

    with (
        Stopping(recorder.said.append) as stopping,
        pytest.raises(TrainingStoppedError, match="stopped after step 3 of 6"),
    ):
        run_loop(recorder, step, save_checkpoint=recorder.save_checkpoint, stopping=stopping)
    assert recorder.events == [("log", 2), ("checkpoint", 3)]


def test_a_signal_during_a_milestone_stops_in_it_since_its_step_is_saved():
    recorder = Recorder()

    def evaluate(step: int, state: TrainState) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the measure goes on")

    config = LoopConfig(total_steps=2, milestones=(1, 2), log_every=1)
    with Stopping(recorder.said.append) as stopping, pytest.raises(TrainingStoppedError):
        train(
            make_state(),
            make_step(),
            make_batches(),
            config,
            log=recorder.log,
            save_model=recorder.save_model,
            evaluate=evaluate,
            save_checkpoint=recorder.save_checkpoint,
            stopping=stopping,
        )
    assert recorder.events == [("checkpoint", 1), ("log", 1)]


def test_without_a_dev_measure_milestones_are_saved():
    recorder = Recorder()
    config = LoopConfig(total_steps=1, milestones=(1,), log_every=10)
    train(
        make_state(),
        make_step(),
        make_batches(),
        config,
        log=recorder.log,
        save_model=recorder.save_model,
    )
    assert recorder.events == [("log", 1), ("save", 1)]


def test_milestones_are_spread_evenly_and_end_at_the_end():
    assert spread_milestones(91_751, 10)[0] == 9175
    assert spread_milestones(91_751, 10)[-1] == 91_751
    assert spread_milestones(150, 2) == (75, 150)
    assert spread_milestones(3, 3) == (1, 2, 3)
    with pytest.raises(InputError, match=r"training.milestones: got 4; between 1 and .*3"):
        spread_milestones(3, 4)
    with pytest.raises(InputError, match=r"training.milestones: got 10 \(the default\); between"):
        spread_milestones(3, 10)
    assert doctest.testmod(loop).failed == 0


def test_a_step_is_started_before_the_metrics_of_the_one_before_are_waited_for(
    monkeypatch: pytest.MonkeyPatch,
):
    events: list[str] = []
    plain, recorder, read = make_step(), Recorder(), jax.device_get

    def step(state: TrainState, batch: Mapping[str, Any]) -> tuple[TrainState, dict[str, Any]]:
        events.append(f"start {int(state.step) + 1}")
        return plain(state, batch)

    def wait(metrics: Any) -> Any:
        events.append(f"wait for {int(metrics['loss'])}")
        return read(metrics)

    monkeypatch.setattr(jax, "device_get", wait)
    config = LoopConfig(total_steps=3, milestones=(3,), log_every=3)
    train(
        make_state(),
        step,
        make_batches(),
        config,
        log=recorder.log,
        save_model=recorder.save_model,
    )
    expected = ["start 1", "start 2", "wait for 1", "start 3", "wait for 2", "wait for 3"]
    assert events == expected
