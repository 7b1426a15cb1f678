"""Rotary position embedding: queries and keys turn by an angle that grows with the position.

Su et al., 2021, arXiv 2104.09864, in the half-split layout of GPT-NeoX and Llama: channel i of a
head is paired with channel i + R/2, where R is the number of channels that turn.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxrank.shapes import Array, Float, Float32, Int


class Rotary(NamedTuple):
    """Cosines and sines of every position's angles; R/2 angles serve R channels of each head."""

    cosine: Float32[Array, "*batch L angles"]
    sine: Float32[Array, "*batch L angles"]


def rotary_frequencies(channels: int, *, base: float) -> Float32[np.ndarray, " angles"]:
    """Radians a position for each pair of channels: base^(-2i/R), i from 0 to R/2 - 1."""
    exponents = np.arange(0, channels, 2, dtype=np.float64) / channels
    return (base**-exponents).astype(np.float32)


def llama3_frequencies(
    frequencies: Float32[np.ndarray, " angles"],
    *,
    factor: float,
    low_frequency_factor: float,
    high_frequency_factor: float,
    original_length: int,
) -> Float32[np.ndarray, " angles"]:
    """Stretch slow frequencies for contexts longer than those of pretraining, as Llama 3.1 does.

    Waves longer than original_length / low_frequency_factor slow down by `factor`, those shorter
    than original_length / high_frequency_factor stay, and between the two it is interpolated.
    Matches transformers' `rope_type: llama3`.
    """
    turns = original_length * frequencies.astype(np.float64) / (2 * math.pi)
    span = high_frequency_factor - low_frequency_factor
    kept = np.clip((turns - low_frequency_factor) / span, 0.0, 1.0)
    return (frequencies * (kept + (1 - kept) / factor)).astype(np.float32)


def make_rotary(
    positions: Int[Array, "*batch L"], frequencies: Float32[Array, " angles"]
) -> Rotary:
    """The table for those positions."""
    broadcast = (None,) * positions.ndim
    angles = positions[..., None].astype(jnp.float32) * frequencies[(*broadcast, slice(None))]
    return Rotary(jnp.cos(angles), jnp.sin(angles))


def apply_rotary(x: Float[Array, "B L H K"], rotary: Rotary) -> Float[Array, "B L H K"]:
    """Turn the first R channels of every head, in float32; the others pass through.

    `rotary` holds one table for all sequences (L, R/2) or one each (B, L, R/2).
    """
    half = rotary.cosine.shape[-1]
    cosine, sine = ((table if table.ndim == 3 else table[None])[:, :, None, :] for table in rotary)
    wide = x[..., : 2 * half].astype(jnp.float32)
    first, second = wide[..., :half], wide[..., half:]
    turned = jnp.concatenate(
        [first * cosine - second * sine, second * cosine + first * sine], axis=-1
    ).astype(x.dtype)
    return turned if 2 * half == x.shape[-1] else jnp.concatenate([turned, x[..., 2 * half :]], -1)
