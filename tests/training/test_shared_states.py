"""Documents read once and met by all queries: scores and gradients of all pairs one by one."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrank.models.mamba import MambaConfig
from jaxrank.models.mamba2 import Mamba2Config
from jaxrank.models.module import RerankerConfig, RerankerModule, init_module
from jaxrank.training.group_scores import score_groups
from jaxrank.training.optimizer import OptimizerConfig, make_optimizer
from jaxrank.training.shared_states import score_all_pairs
from jaxrank.training.step import init_state, make_train_step
from tests.families.comparison import QUICK_COMPILATION

QUERIES, CANDIDATES, DOCUMENT, QUERY = 3, 2, 9, 5
compiled: dict[Any, Any] = {}  # once for all tests
CONFIGS = {
    "mamba": RerankerConfig(
        "mamba",
        MambaConfig(vocab_size=50, hidden_size=16, num_layers=2, state_size=4),
    ),
    "mamba2": RerankerConfig(
        "mamba2",
        Mamba2Config(
            vocab_size=50, hidden_size=16, num_layers=2, state_size=4, head_size=8, num_groups=1
        ),
    ),
}


def make_batch() -> dict[str, np.ndarray]:
    """Groups of uneven texts, the second of one candidate; one pair of other groups is masked."""
    random = np.random.default_rng(0)

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


def as_sequences(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same pairs as a padded batch, each a whole sequence of its own."""
    queries, candidates, _ = batch["document_ids"].shape
    pairs = queries * candidates
    input_ids = np.zeros((queries, pairs, DOCUMENT + QUERY), np.int32)
    mask = np.zeros(input_ids.shape, np.bool_)
    for row in range(queries):
        for column in range(pairs):
            group, place = (row + column // candidates) % queries, column % candidates
            document = batch["document_ids"][group, place][batch["document_mask"][group, place]]
            query = batch["query_ids"][row][batch["query_mask"][row]]
            ids = np.concatenate([document, query])
            input_ids[row, column, : len(ids)] = ids
            mask[row, column, : len(ids)] = True
    return {
        "input_ids": input_ids,
        "mask": mask,
        "token_type_ids": np.zeros_like(input_ids),
        "candidate_mask": batch["candidate_mask"],
    }


def make_module(family: str, *, head_dropout: float = 0.0) -> RerankerModule:
    return init_module(replace(CONFIGS[family], head_dropout=head_dropout), seed=0)


@cache
def make_step(family: str, parts: int = 1, chunk: int | None = None) -> Any:
    """An optimizer and a step."""
    optimizer, schedule = make_optimizer(OptimizerConfig(warmup_steps=0), 10)
    graphdef, _ = nnx.split(make_module(family))
    return optimizer, make_train_step(
        graphdef, optimizer, schedule, accumulation=parts, chunk=chunk
    )


def run_step(
    family: str, batch: dict[str, np.ndarray], *, parts: int = 1, chunk: int | None = None
) -> tuple[list[np.ndarray], dict[str, float]]:
    """Gradients and metrics of one step; Adam's first average is a tenth of the gradient then."""
    optimizer, _ = make_step(family, parts, chunk)
    _, state = init_state(make_module(family), optimizer, key=jax.random.key(0))
    arrays = {name: jnp.asarray(array) for name, array in batch.items()}
    kind = "plain" if "input_ids" in arrays else "shared"
    if (step := compiled.get((family, parts, chunk, kind))) is None:
        lowered = make_step(family, parts, chunk)[1].lower(state, arrays)
        step = lowered.compile(compiler_options=QUICK_COMPILATION)
        compiled[family, parts, chunk, kind] = step
    state, metrics = step(state, arrays)
    gradients = [10 * np.asarray(leaf) for leaf in jax.tree.leaves(state.optimizer_state[0].mu)]
    return gradients, {name: float(value) for name, value in metrics.items()}


@cache
def shared_step(family: str) -> tuple[list[np.ndarray], dict[str, float]]:
    return run_step(family, make_batch())


def assert_close(gradients: list[np.ndarray], expected: list[np.ndarray]) -> None:
    """Equal to 1e-5 of the largest entry of all."""
    largest = max(np.abs(leaf).max() for leaf in expected)
    assert largest > 1e-3
    for gradient, leaf in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, leaf, rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize("family", CONFIGS)
def test_the_gradient_is_that_of_all_pairs_one_by_one(family: str):
    gradients, metrics = shared_step(family)
    expected, of_pairs = run_step(family, as_sequences(make_batch()))
    assert_close(gradients, expected)
    for name in ("loss", "group_accuracy", "score_spread", "pairs", "gradient_norm"):
        np.testing.assert_allclose(metrics[name], of_pairs[name], rtol=1e-5, atol=1e-6)


def test_what_counts_are_pairs_with_documents_read_once():
    batch, (_, metrics) = make_batch(), shared_step("mamba")
    document_lengths, query_lengths = (
        batch[f"{side}_mask"].sum(axis=-1) for side in ("document", "query")
    )
    # Of 6 places one has no document; and each query but the last counts the 5 others.
    assert metrics["pairs"] == 14
    of_documents = document_lengths.sum() - document_lengths[1, 1]
    assert metrics["tokens"] == of_documents + query_lengths @ [5, 5, 4]
    assert metrics["padded_tokens"] == 6 * DOCUMENT + 3 * 6 * QUERY


def test_what_a_pair_holds_that_does_not_count_changes_nothing():
    batch = make_batch()
    batch["document_ids"][1, 1] = 7
    gradients, metrics = run_step("mamba", batch)
    expected, of_other = shared_step("mamba")
    for gradient, leaf in zip(gradients, expected, strict=True):
        np.testing.assert_array_equal(gradient, leaf)
    assert metrics == of_other


def test_parts_and_chunks_of_documents_give_the_gradient_of_the_whole():
    """Of two equal parts, whose groups do not meet: that of one of them."""
    parts = {name: np.stack([array, array]) for name, array in make_batch().items()}
    gradients, metrics = run_step("mamba", parts, parts=2, chunk=4)
    expected, of_one = shared_step("mamba")
    assert_close(gradients, expected)
    np.testing.assert_allclose(metrics["loss"], of_one["loss"], rtol=1e-6)
    for name in ("pairs", "tokens", "padded_tokens"):
        assert metrics[name] == 2 * of_one[name]


def score(function: Any, batch: dict[str, np.ndarray], key: Any = None) -> np.ndarray:
    graphdef, parameters = nnx.split(make_module("mamba", head_dropout=0.5))
    run = jax.jit(
        lambda parameters, batch, key: function(nnx.merge(graphdef, parameters), batch, key=key),
        compiler_options=QUICK_COMPILATION,
    )
    arrays = {name: jnp.asarray(array) for name, array in batch.items()}
    return np.asarray(run(parameters, arrays, key))


def test_one_group_alone_has_the_scores_of_the_plain_recipe():
    batch = {name: array[:1] for name, array in make_batch().items()}
    batch["candidate_mask"] = batch["candidate_mask"][:, :CANDIDATES]
    expected = score(score_groups, as_sequences(batch))
    np.testing.assert_allclose(score(score_all_pairs, batch), expected, atol=1e-6)


def test_each_query_draws_dropout_of_its_own():
    batch = make_batch()
    for side in ("query_ids", "query_mask"):
        batch[side] = batch[side][:1].repeat(QUERIES, axis=0)
    scores = score(score_all_pairs, batch, jax.random.key(0))
    of_first_document = scores[0, 0], scores[1, 2 * CANDIDATES], scores[2, CANDIDATES]
    assert len(set(map(float, of_first_document))) == QUERIES


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
