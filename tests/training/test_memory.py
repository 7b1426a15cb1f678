"""A step's memory by the compiler's analysis, what there is, and the parts that fit in it."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxrank.errors import InputError
from jaxrank.models.bert import BertConfig
from jaxrank.models.module import RerankerConfig, init_module
from jaxrank.training import memory
from jaxrank.training.memory import (
    MeasuredStep,
    Memory,
    StepMemory,
    find_accumulation,
    measure_step,
    read_memory,
)
from jaxrank.training.optimizer import OptimizerConfig, make_optimizer
from jaxrank.training.step import TrainState, init_state, make_train_step

CONFIG = RerankerConfig(
    "bert",
    BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_layers=2,
        num_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    ),
)
MIB = 2**20


def shapes(groups: int = 8, length: int = 64) -> dict[str, jax.ShapeDtypeStruct]:
    """A batch of 8 candidates a group, as shapes."""
    ids = jax.ShapeDtypeStruct((groups, 8, length), jnp.int32)
    return {
        "input_ids": ids,
        "token_type_ids": ids,
        "mask": jax.ShapeDtypeStruct(ids.shape, jnp.bool_),
        "candidate_mask": jax.ShapeDtypeStruct(ids.shape[:2], jnp.bool_),
    }


def make_step(**options: Any) -> Any:
    optimizer, schedule = make_optimizer(OptimizerConfig(warmup_steps=0), 10)
    graphdef, state = init_state(init_module(CONFIG, seed=0), optimizer, key=jax.random.key(0))
    return make_train_step(graphdef, optimizer, schedule, **options), state


def in_parts(batch: Mapping[str, Any], parts: int) -> dict[str, jax.ShapeDtypeStruct]:
    return {
        name: jax.ShapeDtypeStruct((parts, x.shape[0] // parts, *x.shape[1:]), x.dtype)
        for name, x in batch.items()
    }


@pytest.mark.usefixtures("full_compilation")
def test_parts_and_chunks_take_the_memory_of_one_of_them():
    step, state = make_step()
    whole = measure_step(step, state, shapes())
    step, state = make_step(accumulation=4)
    parts = measure_step(step, state, in_parts(shapes(), 4))
    step, state = make_step(chunk=16)
    chunks = measure_step(step, state, shapes())
    assert whole is not None
    assert parts is not None
    assert chunks is not None
    assert parts.temporaries < 0.4 * whole.temporaries
    assert chunks.temporaries < 0.4 * whole.temporaries
    assert parts.shared == whole.shared > 0
    assert whole.total == whole.arguments + whole.temporaries + whole.results - whole.shared


def test_measuring_runs_nothing_and_the_step_does_not_compile_again():
    compiled = 0

    def count(name: str, duration: float, **rest: Any) -> None:
        nonlocal compiled
        compiled += name.endswith("backend_compile_duration")

    train_step, state = make_step()
    batch = {name: jnp.ones(x.shape, x.dtype) for name, x in shapes(2, 8).items()}
    lines: list[str] = []
    step = MeasuredStep(train_step, say=lines.append)
    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        step.measure(state, batch)
        first = compiled
        state, _ = step(state, batch)
        state, _ = step(state, batch)
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    assert first == compiled == 1
    assert len(lines) == 1
    assert "GiB of memory for a batch of 2 x 8 x 8 tokens" in lines[0]


class TestMeasuredStep:
    """What is said, with a step and a device that are given."""

    def run(
        self, monkeypatch: pytest.MonkeyPatch, *, limit: int, is_host: bool, needs: list[int]
    ) -> list[str]:
        def measure(step: Any, state: Any, batch: Any) -> StepMemory:
            size = batch["input_ids"].shape[0]
            return StepMemory(100 * MIB, 100 * MIB, 100 * MIB, needs[size - 1] * MIB)

        monkeypatch.setattr(memory, "measure_step", measure)
        # The arguments are among what is used.
        monkeypatch.setattr(
            memory, "read_memory", lambda: Memory(limit * MIB, 150 * MIB, is_host=is_host)
        )
        state = TrainState(jnp.int32(0), {}, (), jax.random.key(0))
        lines: list[str] = []
        step = MeasuredStep(lambda state, batch: (state, {}), say=lines.append)
        for size in range(1, len(needs) + 1):
            for _ in range(2):
                step.measure(state, {"input_ids": jnp.zeros((size, 1, 4))})
        return lines

    def test_the_first_batch_and_far_larger_ones_are_spoken_of(
        self, monkeypatch: pytest.MonkeyPatch
    ):
        lines = self.run(monkeypatch, limit=8_192, is_host=False, needs=[2000, 2200, 1000, 4000])
        assert lines == [
            "a training step needs 2.1 GiB of 8.0 GiB of memory for a batch of 1 x 1 x 4 tokens",
            "a training step needs 4.0 GiB of 8.0 GiB of memory for a batch of 4 x 1 x 4 tokens",
        ]

    def test_an_accelerator_refuses_what_does_not_fit(self, monkeypatch: pytest.MonkeyPatch):
        with pytest.raises(InputError, match=r"needs 2\.1 GiB of 1\.9 GiB of memory"):
            self.run(monkeypatch, limit=2000, is_host=False, needs=[2000])

    def test_a_cpu_is_warned_of(self, monkeypatch: pytest.MonkeyPatch):
        (line,) = self.run(monkeypatch, limit=2000, is_host=True, needs=[2000])
        assert line.startswith("warning: a training step needs 2.1 GiB of 1.9 GiB")
        assert "training.accumulation" in line


def test_the_fewest_parts_that_fit_are_found():
    tried: list[int] = []

    def measure(parts: int) -> StepMemory:
        tried.append(parts)
        return StepMemory(100, 100, 100, 800 // parts)

    parts, needed = find_accumulation(measure, [1, 2, 4, 8], free=400)
    assert (parts, tried, needed.total) == (4, [1, 2, 4], 300)


def test_memory_is_not_filled_to_the_brim():
    parts, _ = find_accumulation(lambda parts: StepMemory(0, 0, 0, 96 // parts), [1, 2], free=100)
    assert parts == 2


def test_what_fits_in_no_number_of_parts_is_refused():
    with pytest.raises(InputError, match=r"find_batch_size: .*in 2 parts.*training\.chunk"):
        find_accumulation(lambda parts: StepMemory(0, 0, 0, 100), [1, 2], free=100)
    with pytest.raises(InputError, match="does not say"):
        find_accumulation(lambda parts: None, [1, 2], free=100)


def test_a_machine_has_more_memory_than_this_process():
    here = read_memory()
    assert here is not None
    assert here.is_host
    assert 16 * MIB < here.limit < 2**50


def test_a_container_has_no_more_than_its_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Any):
    (tmp_path / "memory.max").write_text(f"{300 * MIB}\n")
    (tmp_path / "memory.stat").write_text(f"anon {100 * MIB}\nfile 7\n")
    monkeypatch.setattr(memory, "_CONTAINER_FILE", tmp_path / "missing")
    monkeypatch.setattr(memory, "_CONTAINER_FOLDER", tmp_path)
    assert read_memory() == Memory(200 * MIB, 0, is_host=True)
    (tmp_path / "memory.max").write_text("max\n")
    here = read_memory()
    assert here is not None
    assert here.limit > 16 * MIB


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        ({"job": 300, "job/step": None, "job/step/task": 400}, 200),
        ({"job": 500, "job/step/task": 250}, 150),
        ({"other": 150, "job/step": 350}, 250),
    ],
)
def test_the_narrowest_of_the_groups_around_this_process_counts(
    limits: dict[str, int | None], left: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
):
    for name, limit in limits.items():
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text("max\n" if limit is None else f"{limit * MIB}\n")
        (folder / "memory.stat").write_text(f"anon {100 * MIB}\n")
    (tmp_path / "cgroup").write_text("4:memory:/other\n0::/job/step/task\n")
    monkeypatch.setattr(memory, "_CONTAINER_FILE", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "_CONTAINER_FOLDER", tmp_path)
    assert read_memory() == Memory(left * MIB, 0, is_host=True)
