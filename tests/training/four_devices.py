"""Runs on four devices that the CPU stands in for, and prints what it found as JSON.

`test_devices.py` starts it, since the number of devices is fixed when a process first uses one.
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import install_import_hook

install_import_hook(["jaxrank"], "beartype.beartype")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from flax import nnx  # noqa: E402

from jaxrank.errors import InputError  # noqa: E402
from jaxrank.models.bert import BertConfig  # noqa: E402
from jaxrank.models.module import RerankerConfig, init_module  # noqa: E402
from jaxrank.ops.dropout import dropout  # noqa: E402
from jaxrank.ranking.scoring import Scorer, Spread  # noqa: E402
from jaxrank.text.tokenize import TokenizedPair  # noqa: E402
from jaxrank.training.checkpoint import Checkpoints  # noqa: E402
from jaxrank.training.devices import (  # noqa: E402
    batch_sharding,
    find_mesh,
    make_mesh,
    put_batch,
    put_state,
    put_whole,
    replicated,
    state_shardings,
    to_host,
)
from jaxrank.training.optimizer import OptimizerConfig, make_optimizer  # noqa: E402
from jaxrank.training.step import TrainState, init_state, make_train_step  # noqa: E402

GROUPS, CANDIDATES, LENGTH, STEPS, VOCABULARY = 8, 3, 12, 3, 520
MODEL = RerankerConfig(
    "bert",
    BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        num_layers=2,
        num_heads=2,
        intermediate_size=192,
    ),
)
ZERO_GRADIENT = ("attention.key.bias", "head.score.bias")


def make_batch(seed: int, accumulation: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    shape = (GROUPS, CANDIDATES, LENGTH)
    lengths = random.integers(4, LENGTH + 1, shape[:2])
    candidate_mask = random.random(shape[:2]) < 0.8
    candidate_mask[:, 0] = True
    batch = {
        "input_ids": random.integers(1, VOCABULARY, shape).astype(np.int32),
        "mask": np.arange(LENGTH) < lengths[..., None],
        "token_type_ids": np.zeros(shape, np.int32),
        "candidate_mask": candidate_mask,
    }
    if accumulation == 1:
        return batch
    parts = (accumulation, GROUPS // accumulation)
    return {name: array.reshape(*parts, *array.shape[1:]) for name, array in batch.items()}


compiled: list[str] = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, duration, **about: (
        compiled.append(event) if event.endswith("backend_compile_duration") else None
    )
)


class Training(NamedTuple):
    """What some steps left."""

    losses: list[float]
    first: TrainState
    """Given to the first step."""
    last: TrainState
    shardings: Any
    metrics: dict[str, Any]
    compilations: int
    """After the first step."""


def train(fsdp: int | None, accumulation: int = 1) -> Training:
    """Some steps, on the mesh of `fsdp` or, if that is None, on one device alone."""
    optimizer, schedule = make_optimizer(
        OptimizerConfig(learning_rate=1e-3, warmup_fraction=0.3), STEPS + 1
    )
    graph, state = init_state(init_module(MODEL, seed=0), optimizer, key=jax.random.key(1))
    put: Callable[[dict[str, np.ndarray]], Any] = partial(jax.tree.map, jnp.asarray)
    shardings = None
    if fsdp is not None:
        mesh = make_mesh(fsdp)
        shardings = state_shardings(state, mesh)
        state = put_state(state, shardings)
        put = partial(put_batch, mesh=mesh, accumulation=accumulation)
    step: Any = make_train_step(
        graph, optimizer, schedule, accumulation=accumulation, state_sharding=shardings
    )
    first, losses, metrics = state, [], {}
    for number in range(STEPS):
        if number == 1:
            compiled.clear()
        state, metrics = step(state, put(make_batch(number, accumulation)))
        losses.append(float(metrics["loss"]))
    return Training(losses, first, state, shardings, metrics, len(compiled))


def named(state: TrainState) -> dict[str, np.ndarray]:
    leaves, _ = jax.tree.flatten_with_path(state.parameters)
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): to_host(leaf)
        for path, leaf in leaves
    }


def compare(got: Training, wanted: Training) -> list[float]:
    """The largest differences of losses and parameters."""
    parameters = named(wanted.last)
    differences = [
        float(np.abs(value - parameters[path]).max())
        for path, value in named(got.last).items()
        if not path.removesuffix(".value").endswith(ZERO_GRADIENT)
    ]
    losses = [abs(a - b) for a, b in zip(got.losses, wanted.losses, strict=True)]
    return [max(losses), max(differences)]


def show_shardings() -> dict[str, str]:
    optimizer, _ = make_optimizer(OptimizerConfig(warmup_fraction=0.3), STEPS)
    _, state = init_state(init_module(MODEL, seed=0), optimizer, key=jax.random.key(1))
    leaves, _ = jax.tree.flatten_with_path(state_shardings(state, make_mesh(2)))
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): str(tuple(leaf.spec))
        for path, leaf in leaves
    }


def watch(training: Training) -> dict[str, Any]:
    """Whether memory is reused, one compilation serves all steps, and the layout stays."""
    first, last = training.first, training.last
    leaves = jax.tree.leaves((first.parameters, first.optimizer_state))
    layout = zip(jax.tree.leaves(last), jax.tree.leaves(training.shardings), strict=True)
    return {
        "donated": all(leaf.is_deleted() for leaf in leaves),
        "compilations": training.compilations,
        "layout": all(leaf.sharding == wanted for leaf, wanted in layout),
        "metrics everywhere": training.metrics["loss"].is_fully_replicated,
    }


def compare_dropout() -> bool:
    mesh = make_mesh(2)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((8, 5, 16)), jnp.float32)
    drop = jax.jit(lambda x: dropout(x, 0.3, jax.random.key(3)))
    spread = jax.device_put(x, batch_sharding(mesh))
    return bool(np.array_equal(drop(x), drop(spread)))


def compare_scores() -> float:
    random = np.random.default_rng(0)
    pairs = [
        TokenizedPair(
            random.integers(1, VOCABULARY, size).astype(np.int32), np.zeros(size, np.int32)
        )
        for size in random.integers(1, LENGTH, 12)
    ]
    module = init_module(MODEL, seed=0)
    options: dict[str, Any] = {"pad_token_id": 0, "max_length": LENGTH, "batch_size": 6}
    mesh = make_mesh(2)
    spread = Spread(mesh.size, partial(put_whole, mesh=mesh), replicated(mesh))
    wanted = Scorer(module, **options).score(pairs)
    values = nnx.state(module)
    values = put_state(values, state_shardings(values, mesh))
    got = Scorer(module, spread=spread, **options).score(pairs, parameters=values)
    return float(np.abs(got - wanted).max())


def restore_on_one_device(folder: Path, state: TrainState) -> bool:
    """Whether a checkpoint of four devices gives one device the same numbers."""
    with Checkpoints(folder, keep=1, say=print) as checkpoints:
        checkpoints.save(STEPS, state, {})
    optimizer, _ = make_optimizer(OptimizerConfig(warmup_fraction=0.3), STEPS)
    _, empty = init_state(init_module(MODEL, seed=5), optimizer, key=jax.random.key(7))
    with Checkpoints(folder, keep=1, say=print) as checkpoints:
        restored = checkpoints.restore(empty)
    assert restored is not None
    same = [
        np.array_equal(to_host(a), to_host(b))
        for a, b in zip(
            jax.tree.leaves((state.parameters, state.optimizer_state)),
            jax.tree.leaves((restored.state.parameters, restored.state.optimizer_state)),
            strict=True,
        )
    ]
    one = {leaf.sharding for leaf in jax.tree.leaves(restored.state.parameters)}
    return all(same) and all(len(sharding.device_set) == 1 for sharding in one)


def refuse() -> list[str]:
    found = []
    for options in (
        {"fsdp": 3, "groups_per_batch": 8, "accumulation": 1},
        {"fsdp": 2, "groups_per_batch": 6, "accumulation": 1},
        {"fsdp": 2, "groups_per_batch": 8, "accumulation": 4},
    ):
        try:
            find_mesh(**options)
        except InputError as error:
            found.append(str(error))
    return found


if __name__ == "__main__":
    jax.config.update("jax_numpy_rank_promotion", "raise")
    alone, in_parts = train(None), train(None, accumulation=2)
    two, four = train(2), train(4, accumulation=2)
    result = {
        "devices": jax.device_count(),
        "shardings": show_shardings(),
        "steps": {
            "fsdp 2": compare(two, alone),
            "two parts, fsdp 4": compare(four, in_parts),
        },
        "step": watch(two),
        "dropout": compare_dropout(),
        "scores": compare_scores(),
        "restored": restore_on_one_device(Path(sys.argv[1]), four.last),
        "refused": refuse(),
    }
    sys.stdout.write(json.dumps(result) + "\n")
