"""Dropout: its statistics, its gradient, its keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrank.ops.dropout import dropout

SIZE = 1 << 20
# One standard deviation of a fraction of SIZE elements; five of them are never exceeded by chance.
FIVE_SIGMA = 5.0 / SIZE**0.5


def kept(seed: int, rate: float = 0.5, shape: tuple[int, ...] = (SIZE,)) -> np.ndarray:
    return np.asarray(dropout(jnp.ones(shape), rate, jax.random.key(seed)) > 0)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
def test_rate_and_expectation_are_exact(rate: float):
    y = np.asarray(dropout(jnp.ones(SIZE), rate, jax.random.key(3)))
    sigma = (rate * (1 - rate)) ** 0.5
    assert abs(np.mean(y == 0) - rate) < sigma * FIVE_SIGMA
    np.testing.assert_allclose(y[y != 0], 1 / (1 - rate), rtol=1e-6)


def test_bfloat16_keeps_the_expectation():
    x = jnp.linspace(0.5, 1.5, SIZE).astype(jnp.bfloat16)
    y = np.asarray(dropout(x, 0.1, jax.random.key(0)), np.float64)
    # 1 / 0.9 rounded to bfloat16 would be off by 1.7e-3.
    assert abs(y.mean() / np.asarray(x, np.float64).mean() - 1) < 5e-4


def test_masks_of_neighbours_rows_and_keys_are_uncorrelated():
    masks = [2.0 * kept(seed, shape=(1024, 1024)) - 1.0 for seed in range(6)]
    first = masks[0]
    for lag in (1, 2, 3, 16, 64, 512):
        assert abs(np.mean(first[:, lag:] * first[:, :-lag])) < 2 * FIVE_SIGMA
        assert abs(np.mean(first[lag:] * first[:-lag])) < 2 * FIVE_SIGMA
    for other in masks[1:]:
        assert abs(np.mean(first * other)) < FIVE_SIGMA
    # Numbers kept in blocks of 64 scatter as the binomial distribution says (variance 64 / 4).
    blocks = np.stack(masks).reshape(-1, 64).sum(axis=1) / 2
    assert abs(blocks.var() / 16.0 - 1.0) < 0.03


def test_the_same_key_gives_the_same_mask_and_the_gradient_uses_it():
    x = jnp.linspace(1.0, 2.0, 128).reshape(8, 16)
    key = jax.random.key(1)
    y, pull = jax.vjp(lambda x: dropout(x, 0.3, key), x)
    np.testing.assert_array_equal(y, dropout(x, 0.3, key))
    np.testing.assert_allclose(pull(jnp.ones_like(x))[0] * x, y, rtol=1e-6)


@pytest.mark.parametrize(("rate", "key"), [(0.0, jax.random.key(0)), (0.5, None)])
def test_no_key_or_no_rate_returns_x(rate: float, key: jax.Array | None):
    x = jnp.ones(3)
    assert dropout(x, rate, key) is x


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_rate_out_of_range_is_refused(rate: float):
    with pytest.raises(ValueError, match=r"^rate: .* came; a number in \[0, 1\) is needed"):
        dropout(jnp.ones(3), rate, jax.random.key(0))
