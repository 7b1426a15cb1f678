"""RMSNorm and LayerNorm against their equations in float64."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrank.ops.norm import gated_rms_norm, layer_norm, rms_norm

# A handful of float32 roundings (6e-8 each), relative to values of about one.
FLOAT32 = 2e-6


def arrays(mean: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    x = random.standard_normal((2, 3, 16)) + mean
    return x, random.standard_normal(16), random.standard_normal(16)


def test_rms_norm_equals_its_equation():
    x, weight, _ = arrays()
    want = weight * x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-2)
    got = rms_norm(jnp.asarray(x), jnp.asarray(weight), epsilon=1e-2)
    np.testing.assert_allclose(got, want, rtol=FLOAT32, atol=FLOAT32)


def test_rms_norm_of_groups_is_that_of_each_part():
    x, weight, _ = (jnp.asarray(array) for array in arrays())
    parts = zip(jnp.split(x, 4, axis=-1), jnp.split(weight, 4), strict=True)
    want = jnp.concatenate([rms_norm(*part, epsilon=1e-2) for part in parts], axis=-1)
    got = rms_norm(x, weight, epsilon=1e-2, num_groups=4)
    np.testing.assert_allclose(got, want, rtol=FLOAT32)
    with pytest.raises(ValueError, match="num_groups: 3 came; a divisor of 16 is needed"):
        rms_norm(x, weight, epsilon=1e-2, num_groups=3)


def plain_rms_norm(x: Any, weight: Any, *, num_groups: int) -> Any:
    """The equation, for JAX to differentiate."""
    grouped = x.reshape(*x.shape[:-1], num_groups, -1)
    mean = jnp.mean(grouped**2, axis=-1, keepdims=True)
    return (grouped / jnp.sqrt(mean + 1e-2)).reshape(x.shape) * weight[None, None, :]


@pytest.mark.parametrize("num_groups", [1, 4])
def test_the_gradients_of_rms_norm_are_those_of_its_equation(num_groups: int):
    x, weight, _ = (jnp.asarray(array, jnp.float32) for array in arrays(mean=0.5))
    options = {"num_groups": num_groups}
    _, pull = jax.vjp(lambda x, w: rms_norm(x, w, epsilon=1e-2, **options), x, weight)
    _, plain_pull = jax.vjp(lambda x, w: plain_rms_norm(x, w, **options), x, weight)
    cotangent = jnp.asarray(np.random.default_rng(1).standard_normal(x.shape), jnp.float32)
    for got, want in zip(pull(cotangent), plain_pull(cotangent), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_a_gated_norm_is_the_norm_of_the_gated_and_so_are_its_gradients():
    y, weight, _ = (jnp.asarray(array, jnp.float32) for array in arrays())
    z = y[::-1] + 0.3
    got, pull = jax.vjp(lambda *a: gated_rms_norm(*a, epsilon=1e-2, num_groups=2), y, z, weight)
    want, plain_pull = jax.vjp(
        lambda y, z, w: plain_rms_norm(y * jax.nn.silu(z), w, num_groups=2), y, z, weight
    )
    np.testing.assert_allclose(got, want, rtol=FLOAT32, atol=FLOAT32)
    for got, want in zip(pull(y + z), plain_pull(y + z), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_norms_keep_for_their_gradient_what_came_in_and_no_more():
    x, weight, _ = arrays()
    half, weight = jnp.asarray(x, jnp.bfloat16), jnp.asarray(weight, jnp.float32)
    _, pull = jax.vjp(lambda x, w: rms_norm(x, w, epsilon=1e-2), half, weight)
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(pull)) == half.nbytes + weight.nbytes
    _, pull = jax.vjp(lambda *a: gated_rms_norm(*a, epsilon=1e-2), half, half + 1, weight)
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(pull)) == 2 * half.nbytes + weight.nbytes


def test_layer_norm_equals_its_equation():
    x, weight, bias = arrays()
    want = weight * (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-2)
    got = layer_norm(jnp.asarray(x), jnp.asarray(weight), jnp.asarray(bias), epsilon=1e-2)
    np.testing.assert_allclose(got, want + bias, rtol=FLOAT32, atol=FLOAT32)


def test_layer_norm_survives_a_large_mean():
    x, weight, bias = arrays(mean=1000.0)
    x = x.astype(np.float32).astype(np.float64)
    want = weight * (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True)) + bias
    got = layer_norm(jnp.asarray(x), jnp.asarray(weight), jnp.asarray(bias), epsilon=0.0)
    # The mean itself rounds at 1000 x 6e-8; E[x^2] - E[x]^2 would be off by 0.1.
    np.testing.assert_allclose(got, want, atol=1e-3)


def test_norms_compute_in_float32_and_keep_the_dtype():
    x, weight, bias = arrays()
    # Squares of 300 overflow float16, the norm's values do not.
    half = jnp.asarray(300.0 * x, jnp.float16)
    wide = np.asarray(half, np.float64)
    want = weight * wide / np.sqrt(np.mean(wide**2, axis=-1, keepdims=True))
    got = rms_norm(half, jnp.asarray(weight), epsilon=0.0)
    assert got.dtype == jnp.float16
    # float16 rounds at 2^-11.
    np.testing.assert_allclose(np.asarray(got, np.float64), want, rtol=1e-3, atol=1e-5)
    narrow = layer_norm(
        jnp.asarray(x, jnp.bfloat16), jnp.asarray(weight), jnp.asarray(bias), epsilon=1e-5
    )
    assert narrow.dtype == jnp.bfloat16


def test_a_weight_of_the_wrong_size_is_named():
    with pytest.raises(ValueError, match=r"^weight: shape \(15,\) came; \(16,\) is needed"):
        inspect.unwrap(rms_norm)(jnp.zeros((2, 16)), jnp.zeros(15), epsilon=1e-5)
