"""The loss scale by itself, and in the steps of a float16 model that overflows."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrank.models.bert import BertConfig
from jaxrank.models.module import RerankerConfig, init_module
from jaxrank.training.loss_scale import (
    GROWTH_INTERVAL,
    LossScale,
    init_loss_scale,
    update_loss_scale,
)
from jaxrank.training.optimizer import OptimizerConfig, first_loss_scale, make_optimizer
from jaxrank.training.step import init_state, make_train_step

CONFIG = RerankerConfig(
    "bert",
    BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_layers=1,
        num_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    ),
)
STEPS = 60


def make_batch() -> dict[str, Any]:
    ids = np.random.default_rng(0).integers(1, 50, (4, 3, 8)).astype(np.int32)
    return {
        "input_ids": ids,
        "mask": ids > 0,
        "token_type_ids": 0 * ids,
        "candidate_mask": np.ones((4, 3), bool),
    }


def after(state: LossScale, *outcomes: bool) -> LossScale:
    for is_finite in outcomes:
        state = update_loss_scale(state, is_finite=jnp.bool_(is_finite))
    return state


def test_an_overflow_halves_the_scale_but_not_below_one():
    state = after(init_loss_scale(8.0), True, False)
    assert (float(state.scale), int(state.finite_steps)) == (4.0, 0)
    assert float(after(state, False, False, False).scale) == 1.0


def test_two_thousand_finite_steps_double_it():
    state = LossScale(jnp.float32(8.0), jnp.int32(GROWTH_INTERVAL - 2))
    assert float(after(state, True).scale) == 8.0
    state = after(state, True, True)
    assert (float(state.scale), int(state.finite_steps)) == (16.0, 0)


def test_it_never_becomes_infinite():
    state = LossScale(jnp.float32(2.0**127), jnp.int32(GROWTH_INTERVAL - 1))
    assert float(after(state, True).scale) == 2.0**127


@pytest.mark.parametrize(
    ("given", "dtype", "expected"),
    [(None, "float16", 65536.0), (None, "bfloat16", None), (128.0, "float32", 128.0)],
)
def test_float16_alone_has_one_by_default(given: float | None, dtype: str, expected: float | None):
    assert first_loss_scale(OptimizerConfig(loss_scale=given), dtype) == expected


class TestFloat16:
    @pytest.fixture(scope="class")
    @classmethod
    def history(cls) -> list[tuple[list[np.ndarray], dict[str, float]]]:
        """Parameters before each step, and its metrics; the first scale is far too large."""
        optimizer, schedule = make_optimizer(
            OptimizerConfig(learning_rate=5e-3, warmup_steps=0), STEPS
        )
        module = init_module(CONFIG, seed=0, dtype=jnp.float16)
        graphdef, state = init_state(module, optimizer, key=jax.random.key(0), loss_scale=2.0**24)
        step = make_train_step(graphdef, optimizer, schedule)
        history = []
        for _ in range(STEPS):
            before = [np.array(leaf) for leaf in jax.tree.leaves(state.parameters)]
            state, metrics = step(state, make_batch())
            history.append((before, {name: float(value) for name, value in metrics.items()}))
        return history

    def test_an_overflow_leaves_float32_parameters_as_they_were(self, history: Any):
        (before, first), (between, _) = history[:2]
        assert first["skipped"] == 1
        assert not np.isfinite(first["gradient_norm"])
        assert np.isfinite(first["loss"])
        assert {leaf.dtype for leaf in before} == {np.dtype(np.float32)}
        for old, new in zip(before, between, strict=True):
            np.testing.assert_array_equal(old, new)

    def test_the_scale_is_halved_until_gradients_are_finite(self, history: Any):
        scales = [metrics["loss_scale"] for _, metrics in history]
        skipped = [metrics["skipped"] for _, metrics in history]
        overflows = skipped.index(0)
        assert overflows >= 1
        assert scales[: overflows + 1] == [2.0 ** (24 - step) for step in range(overflows + 1)]

    def test_training_goes_on_and_learns(self, history: Any):
        last = history[-1][1]
        assert last["skipped"] == 0
        assert last["loss"] < 0.5 * history[0][1]["loss"]

    def test_the_scale_does_not_show_in_the_metrics(self, history: Any):
        _, metrics = next(entry for entry in history if entry[1]["skipped"] == 0)
        assert 0.5 < metrics["loss"] < 2.0
        assert metrics["gradient_norm"] < 100
        assert metrics["score_spread"] < 10
