"""The loop: what is logged, saved and measured when, and what stops it."""

import doctest
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrank.errors import InputError
from jaxrank.training import loop
from jaxrank.training.loop import LoopConfig, spread_milestones, train
from jaxrank.training.step import TrainState


def make_batches() -> Iterator[dict[str, Any]]:
    number = 0
    while True:
        ids = np.full((2, 3, 4), number)
        yield {
            "input_ids": ids,
            "mask": ids >= 0,
            "token_type_ids": ids,
            "candidate_mask": np.ones((2, 3), bool),
            "indices": np.array([2 * number, 2 * number + 1]),
        }
        number += 1


def make_state(step: int = 0) -> TrainState:
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero + step, {"weight": jnp.zeros(())}, (), zero)


def make_step(losses: Mapping[int, float] | None = None, **others: float) -> Any:
    """A step whose loss is its number, unless `losses` says otherwise."""

    def step(state: TrainState, batch: Mapping[str, Any]) -> tuple[TrainState, dict[str, Any]]:
        assert "indices" not in batch
        number = int(state.step) + 1
        metrics = {
            "loss": (losses or {}).get(number, float(number)),
            "gradient_norm": 1.0,
            "group_accuracy": 0.5,
            "learning_rate": number / 10,
            "pairs": 6,
            "tokens": 24,
        } | others
        weight = {"weight": jnp.asarray(float(number))}
        values = {name: jnp.asarray(value) for name, value in metrics.items()}
        return state._replace(step=state.step + 1, parameters=weight), values

    return step


class Recorder:
    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []
        self.values: list[dict[str, float]] = []

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.events.append(("dev" if "dev/RR" in values else "log", step))
        self.values.append(dict(values))

    def save_model(self, step: int, parameters: Any) -> None:
        assert float(parameters["weight"]) == step
        self.events.append(("save", step))


def run_loop(recorder: Recorder, step: Any, total_steps: int = 6, **options: Any) -> TrainState:
    config = LoopConfig(total_steps=total_steps, milestones=(4, total_steps), log_every=2)
    return train(
        options.pop("state", make_state()),
        step,
        make_batches(),
        config,
        log=recorder.log,
        save_model=recorder.save_model,
        evaluate=lambda parameters: {"dev/RR": float(parameters["weight"])},
        **options,
    )


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
            "tokens_per_s",
        }  # fmt: skip
        np.testing.assert_allclose(line["tokens_per_s"] / line["pairs_per_s"], 4)


def test_training_goes_on_from_the_step_of_its_state():
    recorder = Recorder()
    run_loop(recorder, make_step(), state=make_state(step=3))
    assert recorder.events[0] == ("log", 4)
    assert recorder.values[0]["loss"] == 4.0


@pytest.mark.parametrize("bad", [1, 3, 4, 6])
def test_a_loss_that_is_not_finite_stops_with_its_step_and_groups(bad: int):
    recorder = Recorder()
    with pytest.raises(InputError) as error:
        run_loop(recorder, make_step({bad: float("nan")}))
    groups = f"groups {2 * (bad - 1)}, {2 * (bad - 1) + 1} "
    assert str(error.value).startswith(f"step {bad}: loss is nan on {groups}")
    assert "\n" not in str(error.value)
    assert all(kind != "save" or step < bad for kind, step in recorder.events)


def test_a_gradient_that_is_not_finite_stops_too():
    with pytest.raises(InputError, match="step 1: gradient_norm is inf on groups 0, 1 "):
        run_loop(Recorder(), make_step(gradient_norm=float("inf")))


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
    assert doctest.testmod(loop).failed == 0
