"""Checks of what stands around the recurrences: convolution, norms, dropout; and their speed."""

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrank.ops.conv import causal_conv1d
from jaxrank.ops.dropout import dropout
from jaxrank.ops.norm import layer_norm, rms_norm
from jaxrank.ops.oracle import causal_conv1d_oracle, largest_error
from scripts.gpu_check.comparing import by_complex_steps, compare
from scripts.gpu_check.inputs import make_marks
from scripts.gpu_check.rows import VALUES, Row, Sizes, compared

WIDTH = 4  # of Mamba's convolution


def check_causal_conv1d(sizes: Sizes) -> Iterator[Row]:
    """Values and gradients against complex steps."""
    random = np.random.default_rng(sizes.seed)
    batch, length, channels = 2, 30, 6
    arguments = {
        "x": random.standard_normal((batch, length, channels)),
        "weight": random.standard_normal((channels, WIDTH)),
        "bias": random.standard_normal(channels),
        "initial_state": random.standard_normal((batch, WIDTH - 1, channels)),
    }
    run = functools.partial(causal_conv1d, activation="silu", return_final_state=True)
    reference = by_complex_steps(functools.partial(causal_conv1d_oracle, activation="silu"))
    marks = make_marks(random, batch, length)
    yield from compare("causal_conv1d", "xla", run, reference, arguments | marks, seed=sizes.seed)


def check_norms_and_dropout(sizes: Sizes) -> Iterator[Row]:
    """Norms against float64, dropout's rate."""
    random = np.random.default_rng(sizes.seed)
    x, weight, bias = (random.standard_normal(shape) for shape in ((5, 64), 64, 64))
    x32, weight32, bias32 = (jnp.asarray(array, jnp.float32) for array in (x, weight, bias))
    root = np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-5)
    deviation = np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
    centred = x - x.mean(axis=-1, keepdims=True)
    errors = {
        "rms_norm": largest_error(rms_norm(x32, weight32, epsilon=1e-5), weight * x / root),
        "layer_norm": largest_error(
            layer_norm(x32, weight32, bias32, epsilon=1e-5), weight * centred / deviation + bias
        ),
    }
    yield compared("norms", "values", errors, VALUES)
    dropped = dropout(jnp.ones(1 << 20), 0.1, jax.random.key(sizes.seed))
    # Five standard deviations of a fraction of 2^20 draws.
    errors = {"rate": abs(float(jnp.mean(dropped == 0)) - 0.1)}
    yield compared("dropout", "rate", errors, 5 * 0.3 / 2**10)


def time_around(sizes: Sizes) -> Iterator[Row]:
    """Speed and memory of convolution, norm and dropout at full size."""
    shape = (sizes.batch, sizes.length, sizes.channels)
    inputs = {
        "x": jax.random.normal(jax.random.key(sizes.seed), shape, jnp.bfloat16),
        "weight": jnp.ones((sizes.channels, WIDTH)),
    }
    case = "{} x {}, D {}, bf16".format(*shape)
    run = functools.partial(causal_conv1d, activation="silu")
    yield from _time("causal_conv1d", case, run, inputs, sizes)
    masked = functools.partial(run, mask=jnp.ones(shape[:2], bool).at[:, -7:].set(False))
    yield from _time("causal_conv1d", f"{case}, masked", masked, inputs, sizes)
    inputs = {"x": inputs["x"]}
    run = functools.partial(rms_norm, weight=jnp.ones(sizes.channels), epsilon=1e-5)
    yield from _time("norms", f"rms_norm, {case}", run, inputs, sizes)
    run = functools.partial(dropout, rate=0.1, key=jax.random.key(sizes.seed))
    yield from _time("dropout", case, run, inputs, sizes)


def _time(
    check: str, case: str, function: Callable[..., jax.Array], inputs: dict, sizes: Sizes
) -> Iterator[Row]:
    """Measure the function, and its value with the gradient to every input."""

    def loss(inputs: dict) -> jax.Array:
        return jnp.sum(function(**inputs).astype(jnp.float32))

    forward = _measure(lambda inputs: function(**inputs), inputs, repeats=sizes.repeats)
    yield Row(check, f"{case}, forward", measured=forward)
    backward = _measure(jax.value_and_grad(loss), inputs, repeats=sizes.repeats)
    yield Row(check, f"{case}, with gradients", measured=backward)


def _measure(function: Callable[..., Any], *arguments: Any, repeats: int) -> dict[str, float]:
    """Median milliseconds of a call, seconds to compile, and MiB of temporaries."""
    start = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    compile_s = time.perf_counter() - start
    jax.block_until_ready(compiled(*arguments))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        times.append(time.perf_counter() - start)
    return {
        "ms": 1e3 * float(np.median(times)),
        "compile_s": compile_s,
        "temporary_mib": compiled.memory_analysis().temp_size_in_bytes / 2**20,
    }
