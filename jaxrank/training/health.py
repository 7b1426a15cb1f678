"""Signs that a training has gone wrong: steps that were skipped, scores that stopped varying."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from jaxrank.errors import InputError

# A share of the largest spread so far, far below what a schedule or a hard batch does to it.
_COLLAPSED_SHARE = 0.01
# Scores of a model that ignores its input differ by float32's rounding, about 1e-7 of them.
_NO_SPREAD = 1e-5


@dataclass
class Health:
    """Counts over a run; plain values, so that a checkpoint can hold them."""

    failures_in_a_row: int = 0
    """Steps in a row that were skipped, other than for float16's range."""

    skipped: int = 0
    """All steps that were skipped for a loss or gradient that is not finite, overflows apart."""

    overflows: int = 0
    """Steps that were skipped for float16's range, which a smaller loss scale mends."""

    largest_spread: float = 0.0
    """Of the lines of metrics so far."""

    has_warned: bool = False
    """Whether the collapse of scores was reported."""

    def check_step(
        self,
        step: int,
        values: Mapping[str, float],
        groups: Iterable[object],
        *,
        most_in_a_row: int,
        warn: Callable[[str], None],
    ) -> bool:
        """Count a step; return whether it changed the model.

        Args:
            values: its metrics.
            groups: names of its groups, for the messages.

        Raises:
            InputError: `most_in_a_row` steps in a row failed; names this one and its groups.
        """
        bad = [name for name in ("loss", "gradient_norm") if not math.isfinite(values[name])]
        if not bad:
            self.failures_in_a_row = 0
            return True
        if values.get("loss_scale", 1.0) > 1.0:
            self.overflows += 1
            return False
        self.skipped += 1
        self.failures_in_a_row += 1
        where = (
            f"step {step}: {bad[0]} is {values[bad[0]]} on groups "
            f"{', '.join(str(group) for group in groups)} (counted from 0 in the order of the "
            "groups file)"
        )
        if self.failures_in_a_row >= most_in_a_row:
            before = most_in_a_row - 1
            others = f", and the {before} steps before it failed too" if before else ""
            raise InputError(
                f"{where}{others}; a lower optimizer.learning_rate or optimizer.max_grad_norm "
                "may help"
            )
        if self.failures_in_a_row == 1:
            warn(f"{where}; such steps change nothing and are counted")
        return False

    def check_spread(self, step: int, spread: float, *, warn: Callable[[str], None]) -> None:
        """Warn once when the scores inside groups have stopped varying.

        Args:
            spread: standard deviation of scores inside a group, a mean over a line of metrics;
                NaN where no step counted.
        """
        if not math.isfinite(spread):
            return
        limit = max(_NO_SPREAD, _COLLAPSED_SHARE * self.largest_spread)
        if spread < limit and not self.has_warned:
            self.has_warned = True
            warn(
                f"step {step}: the scores inside a group hardly vary any more (standard deviation "
                f"{spread:.2g}, at most {self.largest_spread:.2g} before): the model may have "
                "collapsed; a lower optimizer.learning_rate or a longer warm-up may help"
            )
        self.largest_spread = max(self.largest_spread, spread)

    def summary(self) -> str | None:
        """What the counts come to, if there is anything to tell."""
        parts = []
        if self.skipped:
            parts.append(f"{self.skipped} steps were skipped: loss or gradient was not finite")
        if self.overflows:
            parts.append(f"{self.overflows} steps were skipped for float16's range")
        return "; ".join(parts) or None
