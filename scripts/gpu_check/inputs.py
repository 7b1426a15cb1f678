"""Random inputs of the checks: small ones in numpy float64, full-size ones drawn on the device."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scripts.gpu_check.rows import Sizes


def make_marks(random: np.random.Generator, batch: int, length: int) -> dict[str, np.ndarray]:
    """A mask with a tail and with holes, and some resets; the first token is always there."""
    mask = np.ones((batch, length), bool)
    mask[0, length - length // 8 :] = False
    mask[1:] = random.random((batch - 1, length)) < 0.7
    mask[:, 0] = True
    return {"mask": mask, "reset": random.random((batch, length)) < 0.05}


def random_scan(
    random: np.random.Generator, batch: int, length: int, channels: int, states: int
) -> dict[str, np.ndarray]:
    """Arguments of `selective_scan`; steps are of a trained model's size, so memory is long."""
    normal = random.standard_normal
    return {
        "u": normal((batch, length, channels)),
        "delta": normal((batch, length, channels)) - 3.0,
        "A": -np.arange(1.0, states + 1) * np.exp(0.3 * normal((channels, states))),
        "B": normal((batch, length, states)),
        "C": normal((batch, length, states)),
        "D": normal(channels),
        "z": normal((batch, length, channels)),
        "delta_bias": normal(channels),
        "initial_state": normal((batch, channels, states)),
    }


def random_ssd(
    random: np.random.Generator,
    batch: int,
    length: int,
    heads: int,
    width: int,
    states: int,
    groups: int = 1,
) -> dict[str, np.ndarray]:
    """Arguments of `ssd`."""
    normal = random.standard_normal
    return {
        "x": normal((batch, length, heads, width)),
        "dt": np.logaddexp(0.0, normal((batch, length, heads)) - 3.0),
        "A": -np.exp(normal(heads)),
        "B": normal((batch, length, groups, states)),
        "C": normal((batch, length, groups, states)),
        "D": normal(heads),
        "initial_state": normal((batch, heads, width, states)),
    }


def random_attention(
    random: np.random.Generator, batch: int, length: int, heads: int, width: int
) -> dict[str, np.ndarray]:
    """Query, key and value."""
    shape = (batch, length, heads, width)
    return {name: random.standard_normal(shape) for name in ("query", "key", "value")}


def rounded(arguments: dict[str, np.ndarray], dtype: Any) -> dict[str, np.ndarray]:
    """The same in float64 again, after rounding to `dtype`; marks stay."""
    return {
        name: value if value.dtype == bool else np.asarray(jnp.asarray(value, dtype), np.float64)
        for name, value in arguments.items()
    }


def full_scan(sizes: Sizes, channels: int, dtype: Any = jnp.bfloat16) -> dict[str, jax.Array]:
    """A full-size selective scan's arguments, drawn on the device, where numpy would take long."""
    states = 16
    tokens, per_state = (sizes.batch, sizes.length, channels), (sizes.batch, sizes.length, states)
    shapes = {"u": tokens, "delta": tokens, "B": per_state, "C": per_state, "z": tokens}
    keys = jax.random.split(jax.random.key(sizes.seed), len(shapes))
    drawn = {
        name: jax.random.normal(key, shape, dtype)
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }
    drawn["delta"] = drawn["delta"] - 4.0
    drawn["A"] = jnp.tile(-jnp.arange(1.0, states + 1)[None, :], (channels, 1))
    return {**drawn, "D": jnp.ones(channels), "delta_bias": jnp.zeros(channels)}


def full_ssd(sizes: Sizes, dtype: Any = jnp.bfloat16) -> dict[str, jax.Array]:
    """A full-size recurrence of Mamba-2: heads of 64 channels with 128 states."""
    batch, length, width, states = sizes.batch, sizes.length, 64, 128
    heads = max(4, sizes.channels // width)
    keys = jax.random.split(jax.random.key(sizes.seed), 4)
    per_state = (batch, length, 1, states)
    return {
        "x": jax.random.normal(keys[0], (batch, length, heads, width), dtype),
        "dt": jax.nn.softplus(jax.random.normal(keys[1], (batch, length, heads)) - 4.0),
        "A": -jnp.arange(1.0, heads + 1),
        "B": jax.random.normal(keys[2], per_state, dtype),
        "C": jax.random.normal(keys[3], per_state, dtype),
        "D": jnp.ones(heads),
    }


def full_attention(sizes: Sizes, dtype: Any = jnp.bfloat16) -> dict[str, jax.Array]:
    """Full-size query, key and value, heads of 64."""
    shape = (sizes.batch, sizes.length, sizes.heads, 64)
    keys = jax.random.split(jax.random.key(sizes.seed), 3)
    return {
        name: jax.random.normal(key, shape, dtype)
        for name, key in zip(("query", "key", "value"), keys, strict=True)
    }
