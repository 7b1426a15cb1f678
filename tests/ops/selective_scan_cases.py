"""Arguments of `selective_scan` for the suites of its implementations, and how they run it."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxrank.ops.selective_scan import selective_scan

ROWS = ("plain", "tail masked", "all masked", "resets", "holes", "left padded")
PER_TOKEN = ("u", "delta", "B", "C", "z")

# float32 rounds at 6e-8; up to 40 dependent steps and sums over up to 240 tokens make some
# 1e-6 of it (measured: 1.2e-6 at worst). A wrong term shows as 1e-2 or more.
FLOAT32 = 1e-5


def make_arguments(
    length: int,
    *,
    full: bool = True,
    rows: Sequence[str] = ROWS,
    channels: int = 5,
    states: int = 3,
    seed: int = 0,
) -> dict:
    """Arguments in float64; with `full`, each row of the batch has the marks of its name."""
    random = np.random.default_rng(seed)
    batch = len(rows)
    normal = random.standard_normal
    made = {
        "u": normal((batch, length, channels)),
        "delta": normal((batch, length, channels)) - 1.0,
        "A": -np.exp(normal((channels, states))),
        "B": normal((batch, length, states)),
        "C": normal((batch, length, states)),
    }
    if not full:
        return made
    made |= {
        "D": normal(channels),
        "z": normal((batch, length, channels)),
        "delta_bias": normal(channels),
        "initial_state": normal((batch, channels, states)),
    }
    mask = np.ones((batch, length), bool)
    reset = np.zeros((batch, length), bool)
    for row, name in enumerate(rows):
        if name == "tail masked":
            mask[row, -(length // 3) - 1 :] = False
        elif name == "all masked":
            mask[row] = False
        elif name == "holes":
            mask[row] = random.random(length) < 0.6
        elif name == "left padded":
            mask[row, : length // 2] = False
        if name == "resets":
            reset[row, [0, length // 2, -1]] = True
        elif name == "holes":
            reset[row] = random.random(length) < 0.2
        elif name != "plain":
            reset[row, length // 3] = True
    return made | {"mask": mask, "reset": reset}


def without_softplus(arguments: dict) -> dict:
    """The same with steps that are positive as they are, whatever the bias."""
    return arguments | {"delta": np.abs(arguments["delta"]) + 3.0}


def differentiable(arguments: dict) -> list[str]:
    return [name for name in arguments if name not in ("mask", "reset")]


def make_cotangents(arguments: dict) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(99)
    states = random.standard_normal((len(arguments["u"]), *arguments["A"].shape))
    return random.standard_normal(arguments["u"].shape), states


def to_jax(arguments: dict, dtype: type = jnp.float32) -> dict[str, jax.Array]:
    """Floats per token in `dtype`, other floats in float32, booleans as they are."""
    made = {name: jnp.asarray(value) for name, value in arguments.items()}
    for name in differentiable(arguments):
        made[name] = made[name].astype(dtype if name in PER_TOKEN else jnp.float32)
    return made


@functools.partial(jax.jit, static_argnames=("implementation", "softplus"))
def run(*, implementation: str, softplus: bool = True, **arrays: jax.Array) -> tuple:
    """Return y and the final state."""
    return selective_scan(
        **arrays, softplus=softplus, return_final_state=True, implementation=implementation
    )


@functools.partial(jax.jit, static_argnames=("implementation", "softplus"))
def run_with_gradients(
    arrays: dict, cotangents: tuple, *, implementation: str, softplus: bool = True
) -> tuple[tuple, dict]:
    """Return (y, final state) and the gradients by name."""
    moving = {name: arrays[name] for name in differentiable(arrays)}
    fixed = {name: arrays[name] for name in arrays if name not in moving}
    values, pull = jax.vjp(
        lambda moving: run(**moving, **fixed, softplus=softplus, implementation=implementation),
        moving,
    )
    return values, pull(cotangents)[0]
