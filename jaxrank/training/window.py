"""The metrics of the steps since the last line, which become one line."""

import time
from collections.abc import Callable, Mapping
from typing import Any

Rates = Callable[[Mapping[str, float], float], dict[str, float]]
"""Sums of pairs, tokens, padded_tokens and steps, and their seconds -> what to log of them."""

_COUNTS = ("pairs", "tokens", "padded_tokens")
# What a step was done with, rather than what came of it: the last one stands for all.
_LATEST = ("learning_rate", "loss_scale")
_NO_MEANS = (*_COUNTS, *_LATEST, "skipped")


def rates_per_second(sums: Mapping[str, float], duration_s: float) -> dict[str, float]:
    """Pairs and tokens a second, the least that can be said."""
    return {f"{name}_per_s": sums[name] / duration_s for name in ("pairs", "tokens")}


class Window:
    """Metrics of some steps, and how long they took.

    Args:
        rates: makes rates of the sums over a window.
        earlier: what `as_json` gave when training was interrupted.
    """

    def __init__(
        self, rates: Rates = rates_per_second, *, earlier: Mapping[str, Any] | None = None
    ) -> None:
        self._rates = rates
        earlier = earlier or {}
        self._steps: list[dict[str, float]] = list(earlier.get("steps", []))
        self._latest: dict[str, float] = dict(earlier.get("latest", {}))
        self._sums: dict[str, float] = dict(earlier.get("sums", {}))
        self._start_s = time.perf_counter() - earlier.get("duration_s", 0.0)

    def add(self, values: Mapping[str, float], *, is_skipped: bool = False) -> None:
        """Take the metrics of one step; those of a skipped one say nothing about the model."""
        for name in _COUNTS:
            self._sums[name] = self._sums.get(name, 0.0) + values.get(name, 0.0)
        self._sums["steps"] = self._sums.get("steps", 0.0) + 1
        self._latest = {name: values[name] for name in _LATEST if name in values}
        if not is_skipped:
            self._steps.append({n: value for n, value in values.items() if n not in _NO_MEANS})

    def close(self) -> dict[str, float]:
        """Means over the steps that were not skipped, and rates; the window begins anew."""
        duration_s = time.perf_counter() - self._start_s
        means = {"loss": float("nan")}
        if self._steps:
            count = len(self._steps)
            means = {n: sum(step[n] for step in self._steps) / count for n in self._steps[0]}
        skipped = {"skipped": self._sums["steps"] - len(self._steps)}
        values = means | self._latest | skipped | self._rates(self._sums, duration_s)
        self.restart()
        return values

    def restart(self) -> None:
        """Begin anew, now."""
        self._steps, self._latest, self._sums = [], {}, {}
        self._start_s = time.perf_counter()

    def as_json(self) -> dict[str, Any]:
        """For a checkpoint: a line is the same whether or not training was interrupted in it."""
        return {
            "steps": self._steps,
            "latest": self._latest,
            "sums": self._sums,
            "duration_s": time.perf_counter() - self._start_s,
        }
