"""The schedule's values, weight decay on every parameter, and refused settings."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrank.errors import InputError
from jaxrank.training.optimizer import OptimizerConfig, make_optimizer


def learning_rates(config: OptimizerConfig, total_steps: int, steps: list[int]) -> list[float]:
    _, schedule = make_optimizer(config, total_steps)
    return [float(schedule(step)) for step in steps]


def test_schedule_rises_to_the_peak_and_falls_to_zero():
    config = OptimizerConfig(learning_rate=1e-4, warmup_steps=10)
    rates = learning_rates(config, 110, [0, 5, 10, 60, 109, 110, 500])
    np.testing.assert_allclose(rates, [0, 5e-5, 1e-4, 5e-5, 1e-6, 0, 0], atol=1e-10)


def test_warmup_fraction_is_part_of_all_steps():
    config = OptimizerConfig(learning_rate=1.0, warmup_fraction=0.1)
    np.testing.assert_allclose(learning_rates(config, 150, [14, 15, 16]), [14 / 15, 1, 134 / 135])


def test_default_warmup_is_the_papers_thousand_steps():
    config = OptimizerConfig(learning_rate=1.0)
    np.testing.assert_allclose(learning_rates(config, 91_751, [500, 1000]), [0.5, 1.0])


def test_no_warmup_starts_at_the_peak():
    assert learning_rates(OptimizerConfig(learning_rate=1.0, warmup_steps=0), 4, [0]) == [1.0]


def test_updates_equal_adamw_in_float64():
    config = OptimizerConfig(learning_rate=0.1, warmup_steps=0, weight_decay=0.5)
    optimizer, schedule = make_optimizer(config, total_steps=10)
    parameter, gradients = np.array([1.0, -2.0]), ([0.5, -3.0], [0.1, 4.0], [-0.3, 0.0])
    values = jnp.asarray(parameter, jnp.float32)
    state = optimizer.init(values)
    first = second = np.zeros(2)
    for step, gradient in enumerate(map(np.array, gradients)):
        update, state = optimizer.update(jnp.asarray(gradient, jnp.float32), state, values)
        values = values - schedule(step) * update
        rate = 0.1 * (1 - step / 10)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        direction = (first / (1 - 0.9 ** (step + 1))) / (
            np.sqrt(second / (1 - 0.999 ** (step + 1))) + 1e-8
        )
        parameter = parameter * (1 - rate * 0.5) - rate * direction
        np.testing.assert_allclose(values, parameter, rtol=1e-5)


def test_every_parameter_decays_biases_and_norms_too():
    parameters = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2), "norm.weight": jnp.ones(2)}
    config = OptimizerConfig(warmup_steps=0, weight_decay=0.01)
    optimizer, _ = make_optimizer(config, total_steps=10)
    zeros = {name: 0 * value for name, value in parameters.items()}
    updates, _ = optimizer.update(zeros, optimizer.init(parameters), parameters)
    for update in updates.values():
        np.testing.assert_allclose(update, 0.01, rtol=1e-6)


def test_averages_of_bfloat16_parameters_are_kept_so_and_computed_in_float32():
    config = OptimizerConfig(warmup_steps=0, weight_decay=0.0, max_grad_norm=1.0)
    optimizer, _ = make_optimizer(config, total_steps=10)
    parameters = jnp.zeros(3, jnp.bfloat16)
    gradients = jnp.array([0.3, -0.2, 0.1], jnp.float32)
    updates, state = optimizer.update(gradients, optimizer.init(parameters), parameters)
    assert updates.dtype == jnp.float32
    adam = next(part for part in state if hasattr(part, "mu"))
    assert adam.mu.dtype == adam.nu.dtype == jnp.bfloat16
    # Of averages rounded before their root, the quotient would be off by up to 1%.
    np.testing.assert_allclose(updates, np.sign(gradients), rtol=1e-5)


def test_clipping_scales_large_gradients_down():
    def first_moment(max_grad_norm: float | None) -> np.ndarray:
        config = OptimizerConfig(warmup_steps=0, max_grad_norm=max_grad_norm)
        optimizer, _ = make_optimizer(config, total_steps=10)
        parameter = jnp.zeros(2)
        _, state = optimizer.update(jnp.array([3.0, 4.0]), optimizer.init(parameter), parameter)
        return np.asarray(next(part for part in state if hasattr(part, "mu")).mu)

    np.testing.assert_allclose(first_moment(None), [0.3, 0.4], rtol=1e-6)
    np.testing.assert_allclose(first_moment(1.0), [0.06, 0.08], rtol=1e-6)
    np.testing.assert_allclose(first_moment(9.0), [0.3, 0.4], rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"warmup_steps": 10, "warmup_fraction": 0.1}, "optimizer.warmup_steps, optimizer.warmup_"),
        ({"warmup_steps": 100}, "optimizer.warmup_steps: 100 in a run of 100 steps"),
        ({}, r"optimizer.warmup_steps: 1000 \(the default\) in a run of 100 steps; .*fraction"),
        ({"warmup_fraction": 1.0}, "optimizer.warmup_fraction: got 1.0"),
        ({"warmup_steps": -1}, "optimizer.warmup_steps: got -1"),
        ({"learning_rate": 0.0}, "optimizer.learning_rate: got 0.0; a positive number is needed"),
        ({"learning_rate": float("nan")}, "optimizer.learning_rate: got nan"),
        ({"betas": (0.9, 1.0)}, r"optimizer.betas: got \(0.9, 1.0\)"),
        ({"weight_decay": -0.1}, "optimizer.weight_decay: got -0.1"),
        ({"max_grad_norm": 0.0}, "optimizer.max_grad_norm: got 0.0"),
    ],
)
def test_unusable_settings_are_named(settings: dict[str, object], message: str):
    with pytest.raises(InputError, match=message):
        make_optimizer(OptimizerConfig(**settings), total_steps=100)
