"""Times calls that take turns, so that a change of the machine's speed touches all of them."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Side:
    """Something whose calls are timed."""

    name: str
    call: Callable[[], object]
    """Is done when it returns."""
    prepare: Callable[[], object] = lambda: None
    """Called before each call, untimed."""


@dataclass(frozen=True)
class Timing:
    """Seconds of a side's calls."""

    seconds: tuple[float, ...]

    @property
    def median_s(self) -> float:
        """The middle one."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """(slowest - fastest) / median."""
        return (max(self.seconds) - min(self.seconds)) / self.median_s


def take_turns(sides: Sequence[Side], *, repeats: int, warmup: int = 1) -> dict[str, Timing]:
    """Call all sides `warmup` + `repeats` times in turn; the first `warmup` do not count."""
    seconds: dict[str, list[float]] = {side.name: [] for side in sides}
    for number in range(warmup + repeats):
        for side in sides:
            side.prepare()
            begin_s = time.perf_counter()
            side.call()
            if number >= warmup:
                seconds[side.name].append(time.perf_counter() - begin_s)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}
