"""The training loop: batches in, steps done, metrics logged, milestones saved and measured.

What it needs of other rooms is handed in: `save_model` and `evaluate` are functions.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from jaxrank.errors import InputError
from jaxrank.progress import progress_bar
from jaxrank.shapes import PyTree
from jaxrank.training.step import BATCH_KEYS, Metrics, TrainState, TrainStep

Batch = Mapping[str, Any]


@dataclass(frozen=True)
class LoopConfig:
    """Length of a run and what happens along the way."""

    total_steps: int
    """The step after which training ends."""
    milestones: tuple[int, ...]
    """Steps after which the model is measured and saved; the last one is `total_steps`."""
    log_every: int
    """Steps between two lines of metrics; each line is the mean over them."""


def train(
    state: TrainState,
    train_step: TrainStep,
    batches: Iterator[Batch],
    config: LoopConfig,
    *,
    log: Callable[[int, Mapping[str, float]], None],
    save_model: Callable[[int, PyTree], None],
    evaluate: Callable[[PyTree], Mapping[str, float]] | None = None,
    progress: bool = False,
) -> TrainState:
    """Train until `config.total_steps` and return the last state.

    Args:
        batches: yields what `make_train_step` documents, plus `indices` (Q,): which groups.
        log: called as `log(step, values)` every `log_every` steps and at milestones.
        save_model: called as `save_model(step, parameters)` at milestones.
        evaluate: called at milestones; its values are logged under their own names.
        progress: draw a bar with rate, loss and time left.

    Raises:
        InputError: the loss or the gradient is not finite; names the step and the groups. The
            state of that step is never saved.
    """
    window = _Window()
    first_step = int(state.step)
    pending: tuple[int, Metrics, np.ndarray] | None = None
    with progress_bar(
        description="training", unit="step", enabled=progress, total=config.total_steps
    ) as bar:
        bar.update(first_step)
        for step in range(first_step + 1, config.total_steps + 1):
            batch = next(batches)
            state, metrics = train_step(state, {name: batch[name] for name in BATCH_KEYS})
            # Metrics are read one step late, so that the device computes while the host prepares
            # the next batch; before anything is logged or saved, they are caught up with.
            if pending is not None:
                window.add(_read(*pending))
            pending = (step, metrics, batch["indices"])
            is_milestone = step in config.milestones
            if is_milestone or step % config.log_every == 0:
                window.add(_read(*pending))
                pending = None
                values = window.close()
                log(step, values)
                bar.set_postfix(loss=f"{values['loss']:.3f}", refresh=False)
            bar.update()
            if is_milestone:
                if evaluate is not None:
                    log(step, evaluate(state.parameters))
                save_model(step, state.parameters)
                window = _Window()
    return state


def spread_milestones(total_steps: int, count: int) -> tuple[int, ...]:
    """`count` steps at equal distances, the last one `total_steps`.

    >>> spread_milestones(400, 3)
    (133, 267, 400)
    """
    if not 1 <= count <= total_steps:
        raise InputError(
            f"training.milestones: got {count}; between 1 and the number of steps "
            f"({total_steps}) is needed"
        )
    return tuple(round(total_steps * (index + 1) / count) for index in range(count))


@dataclass
class _Window:
    """Metrics of the steps since the last line, and when they began."""

    steps: list[dict[str, float]] = field(default_factory=list)
    start_s: float = field(default_factory=time.perf_counter)

    def add(self, metrics: dict[str, float]) -> None:
        self.steps.append(metrics)

    def close(self) -> dict[str, float]:
        """Means over the window, and rates; the window begins anew."""
        now_s = time.perf_counter()
        duration_s = now_s - self.start_s
        sums = {name: sum(step[name] for step in self.steps) for name in self.steps[0]}
        values = {name: total / len(self.steps) for name, total in sums.items()}
        for name in ("pairs", "tokens"):
            values[f"{name}_per_s"] = sums[name] / duration_s
            del values[name]
        values["learning_rate"] = self.steps[-1]["learning_rate"]
        self.steps, self.start_s = [], now_s
        return values


def _read(step: int, metrics: Metrics, indices: np.ndarray) -> dict[str, float]:
    """Wait for a step's metrics and refuse those that are not finite."""
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    for name in ("loss", "gradient_norm"):
        if not math.isfinite(values[name]):
            groups = ", ".join(str(index) for index in indices)
            raise InputError(
                f"step {step}: {name} is {values[name]} on groups {groups} (counted from 0 in the "
                "order of the groups file); a lower optimizer.learning_rate or "
                "optimizer.max_grad_norm may help"
            )
    return values
