"""Documents read once and met by all queries: scores and gradients of all pairs one by one."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxrank.models.lora import LoraConfig, LoraLinear, add_lora
from jaxrank.models.mamba import MambaConfig
from jaxrank.models.mamba2 import Mamba2Config
from jaxrank.models.module import RerankerConfig, RerankerModule
from jaxrank.shapes import Array, PyTree
from jaxrank.training.group_scores import score_groups
from jaxrank.training.losses import info_nce
from jaxrank.training.optimizer import OptimizerConfig, make_optimizer
from jaxrank.training.shared_states import score_all_pairs
from jaxrank.training.step import init_state, make_train_step
from scripts.gpu_check.shared_training import one_by_one

QUERIES, CANDIDATES, DOCUMENT, QUERY = 3, 2, 9, 5
SCORE_BIAS = "head/score/bias"
"""It moves all scores of a query alike, so under InfoNCE its gradient is 0 but for the rounding of
probabilities."""
Gradients = dict[str, np.ndarray]
compiled: dict[Any, Any] = {}  # once for all tests
CONFIGS = {
    "mamba": RerankerConfig(
        "mamba",
        MambaConfig(vocab_size=50, hidden_size=16, num_layers=1, state_size=4),
        head_dropout=0.0,
    ),
    "mamba2": RerankerConfig(
        "mamba2",
        Mamba2Config(
            vocab_size=50, hidden_size=16, num_layers=1, state_size=4, head_size=8, num_groups=1
        ),
        head_dropout=0.0,
    ),
}


def make_batch(seed: int = 0) -> dict[str, np.ndarray]:
    """Groups of uneven texts, the second of one candidate; one pair of other groups is masked."""
    random = np.random.default_rng(seed)

    def texts(*shape: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        mask = np.arange(length) < random.integers(2, length + 1, shape)[..., None]
        return np.where(mask, random.integers(1, 50, mask.shape), 0).astype(np.int32), mask

    document_ids, document_mask = texts(QUERIES, CANDIDATES, length=DOCUMENT)
    query_ids, query_mask = texts(QUERIES, length=QUERY)
    is_document = np.ones((QUERIES, CANDIDATES), np.bool_)
    is_document[1, 1] = False
    candidate_mask = np.stack([np.roll(is_document, -row, axis=0) for row in range(QUERIES)])
    candidate_mask[2, 1, 0] = False
    return {
        "document_ids": document_ids,
        "document_mask": document_mask,
        "query_ids": query_ids,
        "query_mask": query_mask,
        "candidate_mask": candidate_mask.reshape(QUERIES, -1),
    }


@cache
def make_module(family: str) -> RerankerModule:
    """Weights so large that scores lie about 1 apart.

    Of scores that hardly differ, a softmax's gradient is a sum of almost equal numbers of both
    signs: with a third of these weights it rounds at 2e-5 of itself.
    """
    shapes = nnx.eval_shape(lambda: RerankerModule(CONFIGS[family], rngs=nnx.Rngs(params=0)))
    graphdef, state = nnx.split(shapes)
    random = np.random.default_rng(0)
    return nnx.merge(
        graphdef,
        jax.tree.map(lambda x: jnp.asarray(random.normal(0, 0.7, x.shape), x.dtype), state),
    )


def on_device(batch: dict[str, np.ndarray]) -> dict[str, Array]:
    return {name: jnp.asarray(array) for name, array in batch.items()}


def by_name(state: PyTree) -> Gradients:
    flat = nnx.to_flat_state(state)
    return {"/".join(map(str, path)): np.asarray(leaf.get_value()) for path, leaf in flat}


def differentiate(family: str, batch: dict[str, np.ndarray]) -> tuple[Gradients, float, np.ndarray]:
    """Gradients, loss and scores of a batch of either kind."""
    score = score_groups if "input_ids" in batch else score_all_pairs
    graphdef, parameters = nnx.split(make_module(family))

    def loss(parameters: PyTree, batch: Any) -> tuple[Array, Array]:
        scores = score(nnx.merge(graphdef, parameters), batch)
        return info_nce(scores, where=batch["candidate_mask"]), scores

    if (family, score) not in compiled:
        compiled[family, score] = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, scores), gradients = compiled[family, score](parameters, on_device(batch))
    return by_name(gradients), float(value), np.asarray(scores)


@cache
def shared(family: str, seed: int = 0) -> tuple[Gradients, float, np.ndarray]:
    return differentiate(family, make_batch(seed))


@cache
def step_of_two_parts() -> tuple[Gradients, dict[str, float]]:
    """Gradients and metrics of one step; Adam's first average is a tenth of the gradient then."""
    optimizer, schedule = make_optimizer(OptimizerConfig(warmup_steps=0), 10)
    graphdef, state = init_state(make_module("mamba"), optimizer, key=jax.random.key(0))
    step: Any = make_train_step(graphdef, optimizer, schedule, accumulation=2, chunk=4)
    second = make_batch(1)
    batch = {name: np.stack([array, second[name]]) for name, array in make_batch().items()}
    lowered = step.lower(state, on_device(batch))
    state, metrics = lowered.compile()(state, on_device(batch))
    tenths = by_name(state.optimizer_state[0].mu)
    return (
        {name: 10 * array for name, array in tenths.items()},
        {name: float(value) for name, value in metrics.items()},
    )


def assert_close(gradients: Gradients, expected: Gradients) -> None:
    """Each array equal to 1e-5 of its own largest entry."""
    assert gradients.keys() == expected.keys()
    for name, array in expected.items():
        if name == SCORE_BIAS:
            for rounding in (gradients[name], array):
                assert np.abs(rounding).max() < 1e-6
            continue
        largest = np.abs(array).max()
        assert largest > 0, name
        np.testing.assert_allclose(
            gradients[name], array, rtol=0, atol=1e-5 * largest, err_msg=name
        )


@pytest.mark.parametrize("family", CONFIGS)
def test_scores_and_gradient_are_those_of_all_pairs_one_by_one(family: str):
    gradients, loss, scores = shared(family)
    expected, of_pairs, of_rows = differentiate(family, one_by_one(make_batch()))
    np.testing.assert_allclose(scores, of_rows, rtol=0, atol=1e-5 * np.ptp(of_rows))
    assert loss == pytest.approx(of_pairs, rel=1e-5)
    assert_close(gradients, expected)


def test_what_counts_are_pairs_with_documents_read_once():
    _, metrics = step_of_two_parts()
    tokens = 0
    for batch in (make_batch(), make_batch(1)):
        document_lengths, query_lengths = (
            batch[f"{side}_mask"].sum(axis=-1) for side in ("document", "query")
        )
        # Of 6 places one has no document; and each query but the last counts the 5 others.
        of_documents = document_lengths.sum() - document_lengths[1, 1]
        tokens += of_documents + query_lengths @ [5, 5, 4]
    assert metrics["pairs"] == 2 * 14
    assert metrics["tokens"] == tokens
    assert metrics["padded_tokens"] == 2 * (6 * DOCUMENT + 3 * 6 * QUERY)


def test_what_a_pair_holds_that_does_not_count_changes_nothing():
    batch = make_batch()
    batch["document_ids"][1, 1] = 7
    gradients, loss, scores = differentiate("mamba", batch)
    expected, of_other, other_scores = shared("mamba")
    for name, array in expected.items():
        np.testing.assert_array_equal(gradients[name], array)
    assert loss == of_other
    assert (scores != other_scores).sum() == QUERIES


def test_parts_and_chunks_of_documents_give_the_gradient_of_the_whole():
    """Of two parts of as many groups, which do not meet: the mean of theirs."""
    gradients, metrics = step_of_two_parts()
    (first, of_first, _), (second, of_second, _) = shared("mamba"), shared("mamba", 1)
    assert of_first != of_second
    assert_close(gradients, {name: (array + second[name]) / 2 for name, array in first.items()})
    np.testing.assert_allclose(metrics["loss"], (of_first + of_second) / 2, rtol=1e-6)


def with_equal_queries() -> dict[str, Array]:
    batch = make_batch()
    for side in ("query_ids", "query_mask"):
        batch[side] = batch[side][:1].repeat(QUERIES, axis=0)
    return on_device(batch)


def of_first_document(scores: Array) -> set[float]:
    """What the queries give it."""
    return {float(scores[0, 0]), float(scores[1, 2 * CANDIDATES]), float(scores[2, CANDIDATES])}


def test_each_query_draws_dropout_of_its_own_in_the_head():
    module = nnx.clone(make_module("mamba"))
    module.head.dropout_rate = 0.5
    graphdef, parameters = nnx.split(module)
    run = jax.jit(
        lambda parameters, key: score_all_pairs(
            nnx.merge(graphdef, parameters), with_equal_queries(), key=key
        ),
    )
    assert len(of_first_document(run(parameters, jax.random.key(0)))) == QUERIES


def test_adapters_draw_dropout_for_documents_and_each_query_and_the_same_going_back():
    """By differences of the scores along the gradient, which another draw would change by half."""
    module = nnx.clone(make_module("mamba"))
    add_lora(module, LoraConfig(rank=2, dropout=0.5, targets=("in_proj",)), seed=0)
    for number, (_, layer) in enumerate(nnx.iter_modules(module)):
        if isinstance(layer, LoraLinear):
            shape = layer.lora_b.get_value().shape
            layer.lora_b.set_value(0.3 * jax.random.normal(jax.random.key(number), shape))
    graphdef, adapters, frozen = nnx.split(module, nnx.LoRAParam, ...)
    batch, weights = with_equal_queries(), jax.random.normal(jax.random.key(1), (QUERIES, 6))

    def total(adapters: PyTree, key: Array) -> tuple[Array, Array]:
        merged = nnx.merge(graphdef, adapters, frozen)
        scores = score_all_pairs(merged, batch, key=key)
        return jnp.sum(weights * scores), scores

    run = jax.jit(jax.value_and_grad(total, has_aux=True))
    keys = jax.random.key(0), jax.random.key(1)
    (_, scores), gradient = run(adapters, keys[0])
    np.testing.assert_array_equal(run(adapters, keys[0])[0][1], scores)
    assert np.abs(run(adapters, keys[1])[0][1] - scores).max() > 1e-3
    assert len(of_first_document(scores)) == QUERIES
    length = float(optax.tree.norm(gradient))

    def total_at(distance: float) -> float:
        moved = jax.tree.map(lambda x, g: x + distance / length * g, adapters, gradient)
        return float(run(moved, keys[0])[0][0])

    difference = total_at(1e-3) - total_at(-1e-3)
    assert difference / 2e-3 == pytest.approx(length, rel=1e-2)


@pytest.mark.slow
def test_two_devices_take_the_step_of_one():
    child = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("shared_on_two_devices.py"))],
        env=os.environ
        | {
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    found = json.loads(child.stdout.splitlines()[-1])
    assert found["devices"] == 2
    assert found["loss"] <= 1e-5
    assert found["gradients"] <= 1e-5
