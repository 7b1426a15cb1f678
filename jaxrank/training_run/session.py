"""What a run keeps while it trains: results so far, lines of metrics, checkpoints."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxrank.training.checkpoint import Checkpoints
from jaxrank.training.metrics import MetricsLog
from jaxrank.training.step import TrainState


@runtime_checkable
class BatchIterator(Protocol):
    """Batches, and a position among them that can be kept: grain's iterators."""

    def __next__(self) -> Any:
        """The next batch."""

    def __iter__(self) -> Iterator[Any]:
        """Itself."""

    def get_state(self) -> Any:
        """The position, as JSON has it."""

    def set_state(self, state: Any) -> None:
        """Go to a position."""


class Best(NamedTuple):
    """The best value of the first dev measure."""

    measure: str
    value: float
    step: int


class Session:
    """The results of a run, which its checkpoints hold too.

    Args:
        batches: what is trained on; a checkpoint keeps its position.
        metrics: where values are logged.
        checkpoints: where states go.
        measure: the name under which the measure to tell the best model by is logged, such as
            dev/RR@10.
        earlier: what the checkpoint that training goes on from has kept.
        first_step: the step that training goes on from.
    """

    def __init__(
        self,
        *,
        batches: BatchIterator,
        metrics: MetricsLog,
        checkpoints: Checkpoints,
        measure: str | None,
        earlier: Mapping[str, Any] | None,
        first_step: int = 0,
    ) -> None:
        self.first_step = first_step
        self._batches = batches
        self._metrics = metrics
        self._checkpoints = checkpoints
        self._measure = measure
        self.results: dict[str, float] = {}
        self.best: Best | None = None
        if earlier is not None:
            batches.set_state(earlier["batches"])
            self.results = dict(earlier["results"])
            self.best = None if earlier["best"] is None else Best(*earlier["best"])

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the values of a step, and raise the error of a checkpoint that was not written."""
        self._checkpoints.check()
        self.results.update(values)
        self._metrics.log(step, values)
        if self._measure is not None and self._measure in values:
            value = values[self._measure]
            if self.best is None or value > self.best.value:
                self.best = Best(self._measure, value, step)

    def save_checkpoint(self, step: int, state: TrainState, loop: Mapping[str, Any]) -> None:
        """Begin to write a checkpoint of the step that was just done.

        Args:
            loop: what the loop wants back.
        """
        progress = {
            "batches": self._batches.get_state(),
            "results": self.results,
            "best": self.best,
            "loop": dict(loop),
        }
        self._checkpoints.save(step, state, progress)

    def summary(self) -> dict[str, Any]:
        """The results for run.json."""
        return {**self.results, **({} if self.best is None else {"best": self.best._asdict()})}
