"""The step: pure, deterministic, donated; and tiny models of both families learn with it."""

from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrank.models.bert import BertConfig
from jaxrank.models.mamba import MambaConfig
from jaxrank.models.module import RerankerConfig, init_module
from jaxrank.training.losses import info_nce
from jaxrank.training.optimizer import OptimizerConfig, make_optimizer
from jaxrank.training.step import TrainState, init_state, make_train_step, score_groups

TINY_BERT = RerankerConfig(
    "bert",
    BertConfig(
        vocab_size=50,
        hidden_size=32,
        num_layers=2,
        num_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
    ),
    head="classification",
)
TINY_MAMBA = RerankerConfig(
    "mamba", MambaConfig(vocab_size=50, hidden_size=32, num_layers=2, state_size=4)
)
CONFIGS = {"bert": TINY_BERT, "mamba": TINY_MAMBA}
STEPS = 80


def make_batch(groups: int = 4, candidates: int = 4, length: int = 12) -> dict[str, Any]:
    random = np.random.default_rng(0)
    shape = (groups, candidates, length)
    lengths = random.integers(5, length + 1, size=(groups, candidates))
    mask = np.arange(length)[None, None, :] < lengths[:, :, None]
    return {
        "input_ids": np.where(mask, random.integers(1, 50, size=shape), 0).astype(np.int32),
        "mask": mask,
        "token_type_ids": np.zeros(shape, np.int32),
        "candidate_mask": np.ones((groups, candidates), bool),
    }


@cache
def make_step(family: str) -> Any:
    """Optimizer and compiled step; compiled once for all tests."""
    config = OptimizerConfig(learning_rate=3e-3, warmup_fraction=0.1)
    optimizer, schedule = make_optimizer(config, STEPS)
    graphdef, _ = nnx.split(init_module(CONFIGS[family], seed=0))
    return optimizer, make_train_step(graphdef, optimizer, schedule)


def make_state(family: str = "bert", *, seed: int = 0, step: int = 0) -> TrainState:
    optimizer, _ = make_step(family)
    module = init_module(CONFIGS[family], seed=0)
    _, state = init_state(module, optimizer, key=jax.random.key(seed))
    return state._replace(step=jnp.int32(step))


def run_step(state: TrainState, batch: dict[str, Any], family: str = "bert") -> Any:
    return make_step(family)[1](state, batch)


def as_jax(batch: dict[str, Any]) -> dict[str, jax.Array]:
    return {name: jnp.asarray(value) for name, value in batch.items()}


def as_arrays(tree: Any) -> list[np.ndarray]:
    return [np.array(leaf) for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize("family", ["bert", "mamba"])
def test_a_random_start_overfits_four_groups(family: str):
    state, batch, losses = make_state(family), make_batch(), []
    for _ in range(STEPS):
        state, metrics = run_step(state, batch, family)
        losses.append(metrics["loss"])
    np.testing.assert_allclose(losses[0], np.log(4), atol=0.3)
    assert max(losses[-5:]) < 0.1
    assert float(metrics["group_accuracy"]) == 1.0


def test_the_same_state_and_batch_give_the_same_bits():
    results = []
    for _ in range(2):
        state = make_state()
        for _ in range(3):
            state, metrics = run_step(state, make_batch())
        results.append(as_arrays((state.parameters, state.optimizer_state, metrics)))
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)


def test_dropout_differs_by_step_and_by_key():
    def first_loss(seed: int, step: int) -> float:
        return float(run_step(make_state(seed=seed, step=step), make_batch())[1]["loss"])

    assert len({first_loss(0, 0), first_loss(0, 1), first_loss(1, 0)}) == 3


def test_a_step_takes_the_memory_of_its_state_but_not_of_the_module():
    optimizer, step = make_step("bert")
    module = init_module(CONFIGS["bert"], seed=0)
    _, state = init_state(module, optimizer, key=jax.random.key(0))
    step(state, make_batch())
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state._replace(key=None)))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(nnx.state(module)))


def test_metrics_tell_what_the_step_did():
    batch = make_batch()
    batch["candidate_mask"][1, 2:] = False
    state, metrics = run_step(make_state(step=4), batch)
    assert metrics.keys() == {
        "loss", "gradient_norm", "group_accuracy", "learning_rate", "pairs", "tokens"
    }  # fmt: skip
    assert all(value.shape == () for value in metrics.values())
    assert int(state.step) == 5
    assert int(metrics["pairs"]) == 14
    assert int(metrics["tokens"]) == batch["mask"][batch["candidate_mask"]].sum()
    np.testing.assert_allclose(metrics["learning_rate"], 3e-3 * 4 / 8, rtol=1e-6)
    assert float(metrics["gradient_norm"]) > 0


def test_groups_are_scored_as_sequences_one_by_one():
    graphdef, parameters = nnx.split(init_module(CONFIGS["mamba"], seed=0))

    @jax.jit
    def score(batch: dict[str, jax.Array]) -> jax.Array:
        return score_groups(nnx.merge(graphdef, parameters), batch)

    batch = as_jax(make_batch())
    together = score(batch)
    for place in ((0, 0), (3, 1)):
        alone = score({name: value[place][None, None] for name, value in batch.items()})
        np.testing.assert_allclose(together[place], alone[0, 0], atol=1e-6)


def test_loss_and_gradient_norm_equal_those_of_the_plain_module():
    still = replace(
        TINY_BERT,
        head_dropout=0.0,
        backbone=replace(TINY_BERT.backbone, hidden_dropout=0.0, attention_dropout=0.0),
    )
    module, batch = init_module(still, seed=0), as_jax(make_batch())
    batch["candidate_mask"] = batch["candidate_mask"].at[0, 3].set(False)
    graphdef, parameters = nnx.split(module)

    def compute_loss(parameters: Any) -> Any:
        scores = score_groups(nnx.merge(graphdef, parameters), batch)
        return info_nce(scores, where=batch["candidate_mask"])

    loss, gradients = jax.jit(jax.value_and_grad(compute_loss))(parameters)
    squares = sum(float((leaf.astype(np.float64) ** 2).sum()) for leaf in as_arrays(gradients))
    optimizer, schedule = make_optimizer(OptimizerConfig(warmup_steps=0), STEPS)
    graphdef, state = init_state(module, optimizer, key=jax.random.key(0))
    _, metrics = make_train_step(graphdef, optimizer, schedule)(state, batch)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["gradient_norm"], squares**0.5, rtol=1e-4)


def test_what_a_masked_candidate_holds_changes_nothing():
    losses = []
    for token in (1, 7):
        state, batch = make_state(step=10), make_batch()
        batch["candidate_mask"][2, 1:] = False
        batch["input_ids"][2, 1:] = token
        state, _ = run_step(state, batch)
        losses.append(float(run_step(state, batch)[1]["loss"]))
    assert losses[0] == losses[1]
