"""Times on a clock that moves only when a side computes, and what is said of memory."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrank.benchmarking.timing import (
    CompiledSide,
    Rounds,
    peak_of_call,
    time_function,
    time_sides,
)


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class FakeSide:
    """Queues in no time; what was queued is done while it is waited for."""

    compile_s = temporary_bytes = peak_bytes = peak_source = None

    def __init__(self, clock: Clock, seconds: float, log: list[str], name: str) -> None:
        self.clock, self.seconds, self.log, self.name = clock, seconds, log, name
        self.queued = 0
        self.indices: list[int] = []

    def queue(self, index: int) -> Any:
        self.queued += 1
        self.indices.append(index)
        return index

    def wait(self, result: Any) -> None:
        self.clock.now += self.queued * self.seconds
        self.queued = 0
        self.log.append(self.name)

    def values(self) -> dict[str, np.ndarray]:
        return {}


def test_calls_are_queued_together_until_a_measurement_is_long_enough() -> None:
    clock, log = Clock(), []
    side = FakeSide(clock, 0.25, log, "a")
    timing = time_sides({"a": side}, Rounds(warmup=2, repeats=3, least_s=1.0), clock=clock)["a"]
    assert (timing.median_s, timing.low_s, timing.high_s, timing.calls) == (0.25, 0.25, 0.25, 4)
    # Two calls to warm up and one to see how long it takes, then three waits for four calls each.
    assert len(log) == 2 + 1 + 3
    assert side.indices == list(range(2 + 1 + 3 * 4))


def test_sides_take_turns_and_the_spread_is_that_of_the_rounds() -> None:
    clock, log = Clock(), []
    fast, slow = FakeSide(clock, 1.0, log, "fast"), FakeSide(clock, 2.0, log, "slow")

    class Slower(FakeSide):
        def wait(self, result: Any) -> None:
            super().wait(result)
            self.seconds += 1.0

    drifting = Slower(clock, 1.0, log, "drifting")
    sides = {"fast": fast, "slow": slow, "drifting": drifting}
    timings = time_sides(sides, Rounds(warmup=1, repeats=3, least_s=0.0), clock=clock)
    assert log[-9:] == ["fast", "slow", "drifting"] * 3
    assert timings["slow"].median_s == 2.0
    drift = timings["drifting"]
    assert (drift.low_s, drift.median_s, drift.high_s) == (3.0, 4.0, 5.0)


def test_inputs_are_taken_in_turn_and_a_carried_state_goes_from_call_to_call() -> None:
    step = jax.jit(lambda state, x: (state + x, state), donate_argnums=0)
    side = CompiledSide(step, [(jnp.float32(1),), (jnp.float32(10),)], carried=jnp.float32(0))
    assert [float(side.queue(index)) for index in range(4)] == [0.0, 1.0, 11.0, 12.0]


def test_a_function_is_compiled_apart_and_its_memory_known() -> None:
    timing = time_function(
        lambda x: jnp.sin(x) @ x, [(jnp.ones((32, 32)),)], warmup=1, repeats=1, least_s=0.0
    )
    assert timing.compile_s is not None
    assert timing.compile_s > timing.median_s > 0
    assert timing.peak_source == "compiler"  # a CPU keeps no statistics
    assert timing.peak_bytes == 2 * 32 * 32 * 4 + timing.temporary_bytes


def test_the_peak_of_a_call_leaves_out_what_others_hold() -> None:
    before = {"bytes_in_use": 70, "peak_bytes_in_use": 90}
    after = {"bytes_in_use": 75, "peak_bytes_in_use": 170}
    assert peak_of_call(before, after, argument_bytes=20) == 170 - 70 + 20
    assert peak_of_call(before, before, argument_bytes=20) is None
    assert peak_of_call(None, None, argument_bytes=20) is None


def test_rounds_without_a_measurement_are_refused() -> None:
    with pytest.raises(ValueError, match="repeats=0"):
        time_sides({}, Rounds(repeats=0))
