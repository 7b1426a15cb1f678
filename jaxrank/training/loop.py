"""The training loop: batches in, steps done, metrics logged, milestones saved and measured.

What it needs of other rooms is handed in: `save_model`, `evaluate` and `save_checkpoint` are
functions.

A checkpoint of a step is made before anything of that step is logged or measured. So whoever goes
on from it throws away what was logged of that step and later ones, and the loop begins with what
there is to do at its end: nothing is missing, and nothing is there twice.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrank.errors import InputError, TrainingStoppedError
from jaxrank.progress import progress_bar
from jaxrank.shapes import Array, PyTree
from jaxrank.training.config import TrainingConfig
from jaxrank.training.health import Health
from jaxrank.training.step import BATCH_KEYS, Metrics, TrainState, TrainStep
from jaxrank.training.stopping import Stopping
from jaxrank.training.window import Rates, Window, rates_per_second

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
    checkpoint_every: int | None = None
    """Steps between two checkpoints, besides those of milestones."""
    max_skipped_steps: int = 20
    """Failed steps in a row after which training is given up."""


def put_on_device(batch: Mapping[str, np.ndarray]) -> Mapping[str, Array]:
    """A host's batch as arrays of the one device."""
    return {name: jnp.asarray(value) for name, value in batch.items()}


def train(
    state: TrainState,
    train_step: TrainStep,
    batches: Iterator[Batch],
    config: LoopConfig,
    *,
    log: Callable[[int, Mapping[str, float]], None],
    save_model: Callable[[int, TrainState], None],
    evaluate: Callable[[int, TrainState], Mapping[str, float]] | None = None,
    save_checkpoint: Callable[[int, TrainState, Mapping[str, Any]], None] | None = None,
    resume: Mapping[str, Any] | None = None,
    stopping: Stopping | None = None,
    put_batch: Callable[[Mapping[str, np.ndarray]], Mapping[str, Array]] = put_on_device,
    rates: Rates = rates_per_second,
    say: Callable[[str], None] = lambda line: None,
    progress: bool = False,
) -> TrainState:
    """Train until `config.total_steps` and return the last state.

    Args:
        batches: yields what `make_train_step` documents, plus `indices` (Q,): which groups.
        log: called as `log(step, values)` every `log_every` steps and at milestones.
        save_model: called as `save_model(step, state)` at milestones.
        evaluate: called as `evaluate(step, state)` at milestones; its values are logged under
            their own names.
        save_checkpoint: called as `save_checkpoint(step, state, progress)`, where `progress` is
            what JSON can hold and `resume` wants back; before it returns it has copied the state.
        resume: what `save_checkpoint` got at the step of `state`; None at the start of a run.
        stopping: says whether to stop after a step.
        put_batch: puts a batch on the devices.
        rates: what to log about speed.
        say: called with warnings, one line each.
        progress: draw a bar with rate, loss and time left.

    Raises:
        InputError: too many steps in a row whose loss or gradient is not finite, or a state that is
            not; names the step and, of the former, the groups. No such state is ever saved.
        TrainingStoppedError: a stop was asked for; what was done is saved.
    """
    step = int(state.step)
    stopping = stopping or Stopping(say)
    books = _Books(config, rates, say, resume or {})

    def finish_step() -> None:
        """Log, measure and save what is due at the end of `step`."""
        is_milestone = step in config.milestones
        if is_milestone or step % config.log_every == 0:
            values = books.close(step)
            log(step, values)
            bar.set_postfix(loss=f"{values['loss']:.3f}", refresh=False)
        if is_milestone:
            with stopping.at_once():
                if evaluate is not None:
                    log(step, evaluate(step, state))
                save_model(step, state)
            books.window.restart()

    with progress_bar(
        description="training", unit="step", enabled=progress, total=config.total_steps
    ) as bar:
        bar.update(step)
        if resume is not None:
            finish_step()
        while step < config.total_steps:
            batch = next(batches)
            arrays = put_batch({name: batch[name] for name in BATCH_KEYS if name in batch})
            state, metrics = train_step(state, arrays)
            step += 1
            books.enter(step, metrics, batch["indices"])
            is_last = stopping.is_due(step)
            if is_last or _is_checkpoint(step, config):
                books.catch_up()
                check_finite(step, state)
                if save_checkpoint is not None:
                    save_checkpoint(step, state, books.as_json())
            bar.update()
            if is_last:
                raise TrainingStoppedError(
                    f"stopped after step {step} of {config.total_steps}, which is saved; "
                    "the same command goes on from there"
                )
            finish_step()
    if summary := books.health.summary():
        say(summary)
    return state


def spread_milestones(total_steps: int, count: int) -> tuple[int, ...]:
    """`count` steps at equal distances, the last one `total_steps`.

    >>> spread_milestones(400, 3)
    (133, 267, 400)
    """
    if not 1 <= count <= total_steps:
        by_default = " (the default)" if count == TrainingConfig.milestones else ""
        raise InputError(
            f"training.milestones: got {count}{by_default}; between 1 and the number of steps "
            f"({total_steps}) is needed"
        )
    return tuple(round(total_steps * (index + 1) / count) for index in range(count))


def check_finite(step: int, state: TrainState) -> None:
    """Refuse a state that is not to be saved.

    Raises:
        InputError: a parameter or an average of the optimizer is not finite; names the first.
    """
    trained = {"parameters": state.parameters, "optimizer_state": state.optimizer_state}
    if bool(_is_finite(trained)):
        return
    leaves, _ = jax.tree.flatten_with_path(trained)
    path = next(path for path, leaf in leaves if not bool(_is_finite(leaf)))
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    raise InputError(
        f"step {step}: {name} is not finite, so this state is not saved; "
        "a lower optimizer.learning_rate may help"
    )


@jax.jit
def _is_finite(tree: PyTree) -> Array:
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]))


def _is_checkpoint(step: int, config: LoopConfig) -> bool:
    every = config.checkpoint_every
    return step in config.milestones or (every is not None and step % every == 0)


class _Books:
    """What is kept about the steps: their metrics, and whether they went well."""

    def __init__(
        self,
        config: LoopConfig,
        rates: Rates,
        say: Callable[[str], None],
        earlier: Mapping[str, Any],
    ) -> None:
        self._config = config
        self._say = say
        self._unread: tuple[int, Metrics, np.ndarray] | None = None
        self.window = Window(rates, earlier=earlier.get("window"))
        self.health = Health(**earlier.get("health", {}))

    def enter(self, step: int, metrics: Metrics, indices: np.ndarray) -> None:
        """Take the metrics of a step; they are read one step late, so that the device computes
        while the host prepares the next batch.
        """
        self.catch_up()
        self._unread = (step, metrics, np.asarray(indices))

    def catch_up(self) -> None:
        """Wait for the last step and read its metrics."""
        if self._unread is None:
            return
        step, metrics, indices = self._unread
        self._unread = None
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        has_worked = self.health.check_step(
            step,
            values,
            indices.ravel().tolist(),
            most_in_a_row=self._config.max_skipped_steps,
            warn=self._say,
        )
        self.window.add(values, is_skipped=not has_worked)

    def close(self, step: int) -> dict[str, float]:
        """The line of metrics up to `step`."""
        self.catch_up()
        values = self.window.close()
        self.health.check_spread(step, values.get("score_spread", math.nan), warn=self._say)
        return values

    def as_json(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"window": self.window.as_json(), "health": asdict(self.health)}
