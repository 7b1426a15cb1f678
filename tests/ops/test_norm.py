"""RMSNorm and LayerNorm against their equations in float64."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrank.ops.norm import layer_norm, rms_norm

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
