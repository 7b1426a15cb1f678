"""Rotary positions against complex numbers in float64."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrank.ops.rotary import apply_rotary, llama3_frequencies, make_rotary, rotary_frequencies

# float32 rounds angles up to 16 by 1e-6, and each product once more.
FLOAT32 = 3e-6
BATCH, LENGTH, HEADS, WIDTH = 2, 16, 3, 12

LLAMA_3_2 = {
    "factor": 32.0,
    "low_frequency_factor": 1.0,
    "high_frequency_factor": 4.0,
    "original_length": 8192,
}


def make_heads(seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.standard_normal((BATCH, LENGTH, HEADS, WIDTH)).astype(np.float32)


def turned(x: np.ndarray, positions: np.ndarray, channels: int, base: float) -> np.ndarray:
    """Channels i and i + R/2 as one complex number, times e^(i angle); the others as they are."""
    half = channels // 2
    wide = x.astype(np.float64)
    frequencies = np.array([base ** (-2.0 * pair / channels) for pair in range(half)])
    angles = positions[..., :, None, None] * frequencies
    numbers = (wide[..., :half] + 1j * wide[..., half:channels]) * np.exp(1j * angles)
    return np.concatenate([numbers.real, numbers.imag, wide[..., channels:]], axis=-1)


def rotate(x: np.ndarray, positions: np.ndarray, channels: int, base: float = 10000.0):
    frequencies = jnp.asarray(rotary_frequencies(channels, base=base))
    return apply_rotary(jnp.asarray(x), make_rotary(jnp.asarray(positions), frequencies))


@pytest.mark.parametrize(("channels", "base"), [(12, 10000.0), (4, 10000.0), (2, 7.0), (12, 5e5)])
def test_rotation_equals_complex_multiplication(channels: int, base: float):
    x, positions = make_heads(), np.arange(LENGTH)
    want = turned(x, positions, channels, base)
    np.testing.assert_allclose(rotate(x, positions, channels, base), want, atol=FLOAT32)


def test_each_sequence_may_have_positions_of_its_own():
    x = make_heads()
    positions = np.stack([np.arange(LENGTH), np.arange(LENGTH)[::-1]])
    want = turned(x, positions, WIDTH, 10000.0)
    np.testing.assert_allclose(rotate(x, positions, WIDTH), want, atol=FLOAT32)


@pytest.mark.parametrize("channels", [12, 4])
def test_rotation_keeps_norms(channels: int):
    x = make_heads()
    norms = np.linalg.norm(np.asarray(rotate(x, np.arange(LENGTH), channels)), axis=-1)
    np.testing.assert_allclose(norms, np.linalg.norm(x, axis=-1), rtol=1e-6)


@pytest.mark.parametrize("channels", [12, 4])
def test_products_depend_on_the_distance_alone(channels: int):
    query, key, positions = make_heads(1), make_heads(2), np.arange(LENGTH)

    def products(shift: int) -> np.ndarray:
        sides = [rotate(x, positions + shift, channels) for x in (query, key)]
        return np.einsum("blhk,bshk->bhls", *map(np.asarray, sides))

    # Angles of 116 are rounded to 4e-6; products sum 12 of them.
    np.testing.assert_allclose(products(100), products(0), atol=1e-4)
    unturned = np.einsum("blhk,bshk->bhls", query, key)
    assert np.abs(products(0) - unturned).max() > 1.0


def test_channels_beyond_the_rotary_ones_pass_through():
    x = make_heads()
    got = np.asarray(rotate(x, np.arange(LENGTH), 4))
    np.testing.assert_array_equal(got[..., 4:], x[..., 4:])
    assert np.all(np.any(got[:, 1:, :, :4] != x[:, 1:, :, :4], axis=-1))


def test_the_first_position_turns_nothing():
    x = make_heads()
    np.testing.assert_array_equal(rotate(x, np.arange(LENGTH), WIDTH)[:, 0], x[:, 0])


def test_narrow_heads_turn_in_float32():
    x = make_heads()
    narrow = jnp.asarray(x, jnp.bfloat16)
    frequencies = jnp.asarray(rotary_frequencies(WIDTH, base=10000.0))
    # In bfloat16 position 1001 would be 1000, and the fastest angle off by one radian.
    positions = np.arange(1001, 1001 + LENGTH)
    got = apply_rotary(narrow, make_rotary(jnp.asarray(positions), frequencies))
    assert got.dtype == jnp.bfloat16
    want = turned(np.asarray(narrow, np.float32), positions, WIDTH, 10000.0)
    # One rounding to 8 bits of values up to 4.
    np.testing.assert_allclose(np.asarray(got, np.float64), want, atol=4 * 2**-8)


def stretched(frequency: float, options: dict) -> float:
    """As printed with Llama 3.1: three cases by wave length."""
    wave = 2 * np.pi / frequency
    length, factor = options["original_length"], options["factor"]
    low, high = options["low_frequency_factor"], options["high_frequency_factor"]
    if wave < length / high:
        return frequency
    if wave > length / low:
        return frequency / factor
    smooth = (length / wave - low) / (high - low)
    return (1 - smooth) * frequency / factor + smooth * frequency


@pytest.mark.parametrize(
    ("channels", "base", "options"),
    [
        (64, 5e5, LLAMA_3_2),
        (128, 5e5, LLAMA_3_2 | {"factor": 8.0}),
        (12, 100.0, {**LLAMA_3_2, "low_frequency_factor": 2.0, "original_length": 100}),
    ],
)
def test_llama3_stretches_slow_turns(channels: int, base: float, options: dict):
    plain = rotary_frequencies(channels, base=base)
    got = llama3_frequencies(plain, **options)
    want = [stretched(float(frequency), options) for frequency in plain]
    np.testing.assert_allclose(got, want, rtol=1e-6)
    assert got.dtype == np.float32
    slowed = plain / got
    # All three cases are met: kept, between, slowed in full.
    assert slowed[0] == 1.0
    assert np.isclose(slowed[-1], options["factor"])
    assert np.any((slowed > 1.01) & (slowed < options["factor"] - 0.01))


def test_a_factor_of_one_stretches_nothing():
    plain = rotary_frequencies(64, base=5e5)
    got = llama3_frequencies(plain, **LLAMA_3_2 | {"factor": 1.0})
    np.testing.assert_allclose(got, plain, rtol=1e-7)


def test_frequencies_fall_geometrically_from_one():
    for channels, base in itertools.product((2, 16, 64), (100.0, 5e5)):
        frequencies = rotary_frequencies(channels, base=base)
        assert frequencies.shape == (channels // 2,)
        assert frequencies[0] == 1.0
        ratios = frequencies[1:] / frequencies[:-1]
        np.testing.assert_allclose(ratios, base ** (-2 / channels), rtol=1e-6)
