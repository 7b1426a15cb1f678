"""How long calls take and what memory they need: compiled apart, in rounds, sides taking turns.

A side queues calls without waiting and waits once, at the end of a measurement. A measurement is so
many calls that it lasts `least_s` or more: on a GPU the host then runs ahead of the device, and
what is measured is the device's work and not the launching of it. In a round every side makes one
measurement, so a change of the machine's speed touches all of them.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import numpy as np

Clock = Callable[[], float]
MemorySource = Literal["device", "compiler", "torch"]
"""Who says what the peak is: JAX's allocator on the device, the compiler's own analysis (arguments,
results and temporaries of one call), or PyTorch's allocator."""

MOST_CALLS = 200


@dataclass(frozen=True)
class Rounds:
    """How long and how often is measured."""

    warmup: int = 2
    """Calls of each side before the first measurement; memory is read at the first of them."""
    repeats: int = 5
    """Measurements of each side."""
    least_s: float = 0.2
    """A measurement is so many calls that it takes at least this long."""


@dataclass(frozen=True)
class Timing:
    """Seconds of one call, over the measurements, and bytes."""

    median_s: float
    low_s: float
    high_s: float
    calls: int
    """Calls of one measurement."""
    compile_s: float | None = None
    """To trace and compile, without any cache; None where nothing is compiled ahead."""
    temporary_bytes: int | None = None
    """What the compiler needs beside arguments and results."""
    peak_bytes: int | None = None
    peak_source: MemorySource | None = None


@runtime_checkable
class Side(Protocol):
    """One side of a comparison: something that can be called again and again."""

    compile_s: float | None
    temporary_bytes: int | None
    peak_bytes: int | None
    peak_source: MemorySource | None

    def queue(self, index: int) -> Any:
        """Begin call number `index`, on the inputs whose turn it is; yield what to wait for."""
        ...

    def wait(self, result: Any) -> None:
        """Wait until that call, and all queued before it, are done."""
        ...

    def values(self) -> Mapping[str, np.ndarray]:
        """Results on the first inputs, by name, for comparison with another side's; or none."""
        ...


class CompiledSide:
    """A JAX function, compiled for its inputs.

    Args:
        function: jitted or not.
        inputs: tuples of arguments of the same shapes, taken in turn.
        carried: first argument of the function, whose first result takes its place in the next
            call, and whose memory may be donated; None: the function is called on inputs alone.
        names: of the results that `values` yields; none by default.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        inputs: Sequence[tuple[Any, ...]],
        *,
        carried: Any = None,
        names: Sequence[str] = (),
    ) -> None:
        jitted: Any = function if hasattr(function, "lower") else jax.jit(function)
        self._inputs, self._carried, self._names = inputs, carried, names
        first = self._arguments(0)
        begin = time.perf_counter()
        self._compiled = jitted.lower(*first).compile()
        self.compile_s: float | None = time.perf_counter() - begin
        self.temporary_bytes: int | None = None
        self.peak_bytes: int | None = None
        self.peak_source: MemorySource | None = None
        self._argument_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(first))
        analysis = self._compiled.memory_analysis()
        if analysis is not None:
            self.temporary_bytes = analysis.temp_size_in_bytes
            self.peak_source = "compiler"
            self.peak_bytes = (
                analysis.argument_size_in_bytes
                + analysis.output_size_in_bytes
                - analysis.alias_size_in_bytes
                + analysis.temp_size_in_bytes
            )
        self._is_measured = False

    def queue(self, index: int) -> Any:
        """Begin a call; the first one is waited for and its memory read."""
        if self._is_measured:
            return self._call(index)
        self._is_measured = True
        device = jax.local_devices()[0]
        before = device.memory_stats()
        result = jax.block_until_ready(self._call(index))
        peak = peak_of_call(before, device.memory_stats(), argument_bytes=self._argument_bytes)
        if peak is not None:
            self.peak_bytes, self.peak_source = peak, "device"
        return result

    def wait(self, result: Any) -> None:
        """Wait for a call."""
        jax.block_until_ready(result)

    def values(self) -> Mapping[str, np.ndarray]:
        """The named results on the first inputs."""
        if not self._names:
            return {}
        results = self._call(0)
        results = results if isinstance(results, tuple) else (results,)
        return {
            name: np.asarray(result, np.float32)
            for name, result in zip(self._names, results, strict=True)
        }

    def _arguments(self, index: int) -> tuple[Any, ...]:
        inputs = self._inputs[index % len(self._inputs)]
        return inputs if self._carried is None else (self._carried, *inputs)

    def _call(self, index: int) -> Any:
        result = self._compiled(*self._arguments(index))
        if self._carried is not None:
            self._carried, result = result
        return result


def peak_of_call(
    before: Mapping[str, int] | None, after: Mapping[str, int] | None, *, argument_bytes: int
) -> int | None:
    """The most bytes that a call held, its arguments included, by the allocator's own statistics.

    The allocator keeps the peak of the process and nothing resets it, so a call that stays below
    that of earlier ones has no figure of its own: None.
    """
    if not before or not after or "peak_bytes_in_use" not in after:
        return None
    peak = after["peak_bytes_in_use"]
    if peak <= before.get("peak_bytes_in_use", 0):
        return None
    return peak - before.get("bytes_in_use", 0) + argument_bytes


def time_function(
    function: Callable[..., Any],
    inputs: Sequence[tuple[Any, ...]],
    *,
    warmup: int = 2,
    repeats: int = 5,
    least_s: float = 0.2,
) -> Timing:
    """Compile a JAX function and time it on its inputs in turn."""
    side = CompiledSide(function, inputs)
    return time_sides({"": side}, Rounds(warmup, repeats, least_s))[""]


def time_sides(
    sides: Mapping[str, Side], rounds: Rounds, *, clock: Clock = time.perf_counter
) -> dict[str, Timing]:
    """Time several sides in turn, round by round.

    Raises:
        ValueError: fewer than one warm-up call or measurement.
    """
    if rounds.warmup < 1 or rounds.repeats < 1:
        raise ValueError(f"rounds: {rounds} came; at least one of each is needed")
    calls = {name: _warm_up(side, rounds, clock) for name, side in sides.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds.repeats):
        for name, side in sides.items():
            first = rounds.warmup + 1 + number * calls[name]
            seconds[name].append(_measure(side, first, calls[name], clock))
    return {
        name: Timing(
            median_s=statistics.median(seconds[name]),
            low_s=min(seconds[name]),
            high_s=max(seconds[name]),
            calls=calls[name],
            compile_s=side.compile_s,
            temporary_bytes=side.temporary_bytes,
            peak_bytes=side.peak_bytes,
            peak_source=side.peak_source,
        )
        for name, side in sides.items()
    }


def _warm_up(side: Side, rounds: Rounds, clock: Clock) -> int:
    """Call a side until it is warm; how many calls make a measurement long enough."""
    for index in range(rounds.warmup):
        side.wait(side.queue(index))
    once = _measure(side, rounds.warmup, 1, clock)
    return min(MOST_CALLS, max(1, math.ceil(rounds.least_s / max(once, 1e-9))))


def _measure(side: Side, first: int, calls: int, clock: Clock) -> float:
    """Seconds of one call, of `calls` that are queued and waited for together."""
    begin = clock()
    result = None
    for index in range(first, first + calls):
        result = side.queue(index)
    side.wait(result)
    return (clock() - begin) / calls
