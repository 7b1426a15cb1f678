"""A training loop without a model: steps whose loss is their number, and what was done."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrank.training.loop import LoopConfig, train
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
        self.said: list[str] = []
        self.checkpoints: dict[int, Any] = {}

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.events.append(("dev" if "dev/RR" in values else "log", step))
        self.values.append(dict(values))

    def save_model(self, step: int, state: TrainState) -> None:
        assert float(state.parameters["weight"]) == step
        self.events.append(("save", step))

    def save_checkpoint(self, step: int, state: TrainState, progress: Any) -> None:
        assert int(state.step) == step
        self.events.append(("checkpoint", step))
        self.checkpoints[step] = json.loads(json.dumps(progress))

    def losses(self) -> list[float]:
        return [values["loss"] for values in self.values if "loss" in values]


def run_loop(recorder: Recorder, step: Any, total_steps: int = 6, **options: Any) -> TrainState:
    names = ("log_every", "checkpoint_every", "max_skipped_steps")
    lengths = {name: options.pop(name) for name in names if name in options}
    config = LoopConfig(total_steps, (4, total_steps), **({"log_every": 2} | lengths))
    return train(
        options.pop("state", make_state()),
        step,
        make_batches(),
        config,
        log=recorder.log,
        save_model=recorder.save_model,
        evaluate=lambda step, state: {"dev/RR": float(state.parameters["weight"])},
        say=recorder.said.append,
        **options,
    )
