"""The step: pure, deterministic, donated; whole, in parts and in chunks alike; models learn.

Padded batches are here; that packed ones give the same scores, the families' own tests say.
"""

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
from jaxrank.training.group_scores import score_groups
from jaxrank.training.losses import info_nce
from jaxrank.training.optimizer import OptimizerConfig, make_optimizer
from jaxrank.training.step import TrainState, init_state, make_train_step

TINY_BERT = RerankerConfig(
    "bert",
    BertConfig(
        vocab_size=50,
        hidden_size=32,
        num_layers=1,
        num_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
    ),
    head="classification",
)
TINY_MAMBA = RerankerConfig(
    "mamba", MambaConfig(vocab_size=50, hidden_size=32, num_layers=1, state_size=4)
)
CONFIGS = {"bert": TINY_BERT, "mamba": TINY_MAMBA}
STILL_BERT = replace(
    TINY_BERT,
    head_dropout=0.0,
    backbone=replace(TINY_BERT.backbone, hidden_dropout=0.0, attention_dropout=0.0),
)
STILL = {"bert": STILL_BERT, "mamba": replace(TINY_MAMBA, head_dropout=0.0)}
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


def test_a_released_module_is_left_with_shapes_and_its_arrays_are_those_of_the_state():
    optimizer, _ = make_step("bert")
    module = init_module(TINY_BERT, seed=0)
    taken = module.head.score.kernel.get_value()
    graphdef, state = init_state(module, optimizer, key=jax.random.key(0), release=True)
    released = nnx.merge(graphdef, state.parameters, state.frozen)
    assert released.head.score.kernel.get_value() is taken
    left = jax.tree.leaves(nnx.state(module))
    assert len(left) == len(jax.tree.leaves(state.parameters))
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in left)


def test_metrics_tell_what_the_step_did():
    batch = make_batch()
    batch["candidate_mask"][1, 2:] = False
    state, metrics = run_step(make_state(step=4), batch)
    assert metrics.keys() == {
        "loss", "gradient_norm", "group_accuracy", "score_spread", "learning_rate", "skipped",
        "pairs", "tokens", "padded_tokens",
    }  # fmt: skip
    assert all(value.shape == () for value in metrics.values())
    assert int(state.step) == 5
    assert int(metrics["pairs"]) == 14
    assert int(metrics["tokens"]) == batch["mask"][batch["candidate_mask"]].sum()
    assert int(metrics["padded_tokens"]) == batch["mask"].size
    assert int(metrics["skipped"]) == 0
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
    module, batch = init_module(STILL_BERT, seed=0), as_jax(make_batch())
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


def uneven_batch() -> dict[str, Any]:
    """Groups of different sizes, and one of none at all."""
    batch = make_batch()
    batch["candidate_mask"][0, 3] = batch["candidate_mask"][1, 2:] = False
    batch["candidate_mask"][3] = False
    return batch


def in_parts(batch: dict[str, Any], parts: int) -> dict[str, Any]:
    return {name: value.reshape(parts, -1, *value.shape[1:]) for name, value in batch.items()}


def gradients_of_a_step(
    config: RerankerConfig,
    batch: dict[str, Any],
    *,
    seed: int = 0,
    dtype: Any = jnp.float32,
    loss_scale: float | None = None,
    **options: Any,
) -> tuple[list[np.ndarray], Any]:
    """Gradients and metrics of one step; Adam's first average is a tenth of the gradient then."""
    optimizer, schedule = make_optimizer(OptimizerConfig(warmup_steps=0), STEPS)
    module = init_module(config, seed=seed, dtype=dtype)
    graphdef, state = init_state(module, optimizer, key=jax.random.key(0), loss_scale=loss_scale)
    state, metrics = make_train_step(graphdef, optimizer, schedule, **options)(state, batch)
    return [10 * leaf for leaf in as_arrays(state.optimizer_state[0].mu)], metrics


@cache
def whole_step(family: str) -> tuple[list[np.ndarray], Any]:
    return gradients_of_a_step(STILL[family], uneven_batch())


@pytest.mark.parametrize(
    ("family", "parts", "chunk"),
    [("bert", 4, None), ("bert", 1, 5), ("mamba", 2, 3)],
)
def test_parts_and_chunks_give_the_gradients_of_the_whole(
    family: str, parts: int, chunk: int | None
):
    whole, metrics_of_whole = whole_step(family)
    batch = uneven_batch() if parts == 1 else in_parts(uneven_batch(), parts)
    gradients, metrics = gradients_of_a_step(STILL[family], batch, accumulation=parts, chunk=chunk)
    for gradient, expected in zip(gradients, whole, strict=True):
        np.testing.assert_allclose(gradient, expected, atol=1e-6)
    assert metrics.keys() == metrics_of_whole.keys()
    for name, value in metrics.items():
        np.testing.assert_allclose(value, metrics_of_whole[name], atol=1e-6, err_msg=name)


def score(
    module: Any, batch: dict[str, Any], *, key: Any = None, chunk: int | None = None
) -> np.ndarray:
    graphdef, parameters = nnx.split(module)

    @jax.jit
    def run(batch: Any, key: Any) -> Any:
        return score_groups(nnx.merge(graphdef, parameters), batch, key=key, chunk=chunk)

    return np.asarray(run(as_jax(batch), key))


def test_chunks_give_the_scores_of_the_whole_in_their_order():
    module, batch = init_module(TINY_MAMBA, seed=0), uneven_batch()
    expected = score(module, batch)
    np.testing.assert_allclose(score(module, batch, chunk=7), expected, atol=1e-6)


def test_dropout_differs_between_chunks():
    batch = {name: value[:1, :1].repeat(4, axis=0) for name, value in make_batch().items()}
    scores = score(init_module(TINY_BERT, seed=0), batch, key=jax.random.key(0), chunk=1)
    assert len(set(scores[:, 0].tolist())) == 4


def test_dropout_differs_between_parts():
    """With one draw for both, the scores of equal parts would cancel each other out."""
    part = {name: value[:1] for name, value in make_batch().items()}

    def first_score(scores: Any, targets: Any, *, where: Any) -> Any:
        return jnp.mean(scores * targets)

    def loss(targets: list[float]) -> float:
        signs = np.array(targets, np.float32)[:, None, None] * np.ones((2, 1, 4), np.float32)
        batch = {name: np.stack([value, value]) for name, value in part.items()}
        _, state = init_state(init_module(TINY_BERT, seed=0), optimizer, key=jax.random.key(0))
        return float(step(state, batch | {"targets": signs})[1]["loss"])

    optimizer, schedule = make_optimizer(OptimizerConfig(warmup_steps=0), STEPS)
    graphdef, _ = nnx.split(init_module(TINY_BERT, seed=0))
    step = make_train_step(graphdef, optimizer, schedule, loss=first_score, accumulation=2)
    assert abs(loss([1.0, -1.0])) > 1e-4
    np.testing.assert_allclose(loss([1.0, 1.0]), loss([1.0, 0.0]) + loss([0.0, 1.0]), rtol=1e-4)


def test_groups_without_candidates_leave_all_metrics_finite():
    _, metrics = whole_step("bert")
    assert all(np.isfinite(value) for value in metrics.values())
    assert float(metrics["score_spread"]) > 0


def test_a_loss_that_is_not_finite_changes_nothing_but_counts():
    def loss(scores: Any, targets: Any, *, where: Any) -> Any:
        return info_nce(scores, where=where) + jnp.sum(targets)

    optimizer, schedule = make_optimizer(OptimizerConfig(warmup_steps=0), STEPS)
    graphdef, state = init_state(init_module(STILL_BERT, seed=0), optimizer, key=jax.random.key(0))
    step = make_train_step(graphdef, optimizer, schedule, loss=loss)
    good = make_batch() | {"targets": np.zeros((4, 4), np.float32)}
    bad = make_batch() | {"targets": np.full((4, 4), np.nan, np.float32)}
    state, _ = step(state, good)
    before = as_arrays((state.parameters, state.optimizer_state))
    for count in (1, 2):
        state, metrics = step(state, bad)
        assert np.isnan(metrics["loss"])
        assert int(metrics["skipped"]) == int(state.skipped) == count
    after = as_arrays((state.parameters, state.optimizer_state))
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)
    state, metrics = step(state, good)
    assert int(state.step) == 4
    assert int(state.skipped) == 0
    # The rate goes by steps, the averages' correction by the two updates.
    np.testing.assert_allclose(metrics["learning_rate"], schedule(3))
    assert int(state.optimizer_state[0].count) == 2


def test_a_step_holds_gradients_but_no_second_copy_of_the_state():
    config = replace(STILL_BERT, backbone=replace(STILL_BERT.backbone, vocab_size=20_000))
    optimizer, schedule = make_optimizer(OptimizerConfig(max_grad_norm=1.0, warmup_steps=0), 10)
    graphdef, state = jax.eval_shape(
        lambda: init_state(init_module(config, seed=0), optimizer, key=jax.random.key(0))
    )
    memory = (
        make_train_step(graphdef, optimizer, schedule).lower(state, make_batch()).compile()
    ).memory_analysis()
    size = 4 * sum(leaf.size for leaf in jax.tree.leaves(state.parameters))
    assert memory.alias_size_in_bytes >= 3 * size
    assert memory.temp_size_in_bytes < 1.5 * size


def test_parameters_in_bfloat16_lose_updates_below_a_256th():
    config = OptimizerConfig(learning_rate=1e-4, warmup_steps=0, weight_decay=0.0)
    optimizer, schedule = make_optimizer(config, STEPS)
    module = init_module(STILL_BERT, seed=0)
    graphdef, state = init_state(
        module, optimizer, key=jax.random.key(0), parameter_dtype=jnp.bfloat16
    )
    before = as_arrays(state.parameters)
    state, metrics = make_train_step(graphdef, optimizer, schedule)(state, make_batch())
    kept = jax.tree.leaves((state.parameters, state.optimizer_state[0].mu))
    assert {leaf.dtype for leaf in kept} == {jnp.dtype(jnp.bfloat16)}
    assert metrics["gradient_norm"].dtype == jnp.float32
    # Adam's first update is the learning rate: too little for a norm's weight of 1, not for others.
    after = as_arrays(state.parameters)
    changed = [np.any(old != new) for old, new in zip(before, after, strict=True)]
    is_one = [bool((old == 1).all()) for old in before]
    assert any(is_one)
    assert not any(c for c, one in zip(changed, is_one, strict=True) if one)
    assert any(changed)
