"""Checks of the operations: values and gradients against float64, then speed and memory."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrank.ops.attention import attention
from jaxrank.ops.conv import causal_conv1d
from jaxrank.ops.dropout import dropout
from jaxrank.ops.norm import layer_norm, rms_norm
from jaxrank.ops.oracle import (
    causal_conv1d_oracle,
    largest_error,
    oracle_gradients,
    selective_scan_oracle,
    ssd_oracle,
)
from jaxrank.ops.selective_scan import IMPLEMENTATIONS, selective_scan
from jaxrank.ops.ssd import ssd
from scripts.gpu_check.rows import BFLOAT16, GRADIENTS, VALUES, Row, Sizes, compared, speed_rows


def oracle_rows(
    check: str,
    case: str,
    function: Callable[..., tuple[jax.Array, jax.Array]],
    oracle: Callable[..., tuple[np.ndarray, np.ndarray]],
    arguments: dict[str, np.ndarray],
) -> Iterator[Row]:
    """Compare values and every gradient with the float64 oracle."""
    random = np.random.default_rng(7)
    names = [name for name, value in arguments.items() if value.dtype != bool]
    moving = {name: jnp.asarray(arguments[name], jnp.float32) for name in names}
    fixed = {name: arguments[name] for name in arguments if name not in names}
    wanted = oracle(**arguments)
    cotangents = (random.standard_normal(wanted[0].shape), random.standard_normal(wanted[1].shape))

    @jax.jit
    def run(moving: dict, cotangents: tuple) -> tuple:
        values, pull = jax.vjp(lambda moving: function(**moving, **fixed), moving)
        return values, pull(cotangents)[0]

    with jax.default_matmul_precision("highest"):
        narrow = tuple(jnp.asarray(cotangent, jnp.float32) for cotangent in cotangents)
        values, gradients = run(moving, narrow)
    pairs = zip(("y", "final state"), values, wanted, strict=True)
    errors = {name: largest_error(got, want) for name, got, want in pairs}
    yield compared(check, f"{case}, values", errors, VALUES)
    wanted_gradients = oracle_gradients(oracle, arguments, names, cotangents)
    errors = {name: largest_error(gradients[name], wanted_gradients[name]) for name in names}
    yield compared(check, f"{case}, gradients", errors, GRADIENTS)


def make_marks(batch: int, length: int) -> dict[str, np.ndarray]:
    """A mask with a tail and with holes, and some resets."""
    random = np.random.default_rng(5)
    mask = np.ones((batch, length), bool)
    mask[0, -5:] = False
    mask[1] = random.random(length) < 0.7
    return {"mask": mask, "reset": random.random((batch, length)) < 0.1}


def check_selective_scan(sizes: Sizes) -> Iterator[Row]:
    """Every implementation against the oracle; then bfloat16, speed and memory at full size."""
    random = np.random.default_rng(0)
    normal = random.standard_normal
    batch, length, channels, states = 2, 70, 8, 4
    arguments = {
        "u": normal((batch, length, channels)),
        "delta": normal((batch, length, channels)) - 1.0,
        "A": -np.exp(normal((channels, states))),
        "B": normal((batch, length, states)),
        "C": normal((batch, length, states)),
        "D": normal(channels),
        "z": normal((batch, length, channels)),
        "delta_bias": normal(channels),
        "initial_state": normal((batch, channels, states)),
    }
    marks = make_marks(batch, length)
    for name in IMPLEMENTATIONS:
        run = functools.partial(selective_scan, return_final_state=True, implementation=name)
        yield from oracle_rows(
            "selective_scan", name, run, selective_scan_oracle, arguments | marks
        )

    batch, length, channels, states = sizes.batch, sizes.length, sizes.channels, 16
    tokens, per_state = (batch, length, channels), (batch, length, states)
    shapes = {"u": tokens, "delta": tokens, "B": per_state, "C": per_state, "z": tokens}
    # Drawn on the device: at full size they would take numpy longer than all the rest.
    keys = iter(jax.random.split(jax.random.key(0), len(shapes)))
    inputs = {
        name: jax.random.normal(next(keys), shape, jnp.bfloat16) for name, shape in shapes.items()
    }
    inputs["delta"] = inputs["delta"] - 4.0
    inputs["A"] = jnp.tile(-jnp.arange(1.0, states + 1)[None, :], (channels, 1))
    inputs["D"] = jnp.ones(channels)
    shape = f"B{batch} L{length} D{channels} N{states} bf16"
    few = {name: value[:2] if name in shapes else value for name, value in inputs.items()}
    wide = {name: value.astype(jnp.float32) for name, value in few.items()}
    with jax.default_matmul_precision("highest"):
        want = np.asarray(selective_scan(**wide, implementation="reference"), np.float64)
        for name in ("scan", "associative"):
            got = selective_scan(**few, implementation=name).astype(jnp.float32)
            errors = {"y": largest_error(got, want)}
            yield compared("selective_scan", f"{name}, {shape}, values", errors, BFLOAT16)
    for name in ("associative", "scan"):
        run = functools.partial(selective_scan, implementation=name)
        yield from speed_rows("selective_scan", f"{name}, {shape}", run, inputs, sizes)


def check_ssd(sizes: Sizes) -> Iterator[Row]:
    """Both implementations against the oracle; then bfloat16, speed and memory at full size."""
    random = np.random.default_rng(0)
    normal = random.standard_normal
    batch, length, heads, width, groups, states = 2, 70, 4, 8, 2, 5
    arguments = {
        "x": normal((batch, length, heads, width)),
        "dt": np.log1p(np.exp(normal((batch, length, heads)) - 1.0)),
        "A": -np.exp(normal(heads)),
        "B": normal((batch, length, groups, states)),
        "C": normal((batch, length, groups, states)),
        "D": normal(heads),
        "initial_state": normal((batch, heads, width, states)),
    }
    for name, options in {"reference": {}, "chunked": {"chunk": 16}}.items():
        run = functools.partial(ssd, return_final_state=True, implementation=name, **options)
        marks = make_marks(batch, length)
        yield from oracle_rows("ssd", name, run, ssd_oracle, arguments | marks)

    batch, length, width, states = sizes.batch, sizes.length, 64, 128
    heads = max(1, sizes.channels // width)
    keys = jax.random.split(jax.random.key(0), 4)
    per_state = (batch, length, 1, states)
    inputs = {
        "x": jax.random.normal(keys[0], (batch, length, heads, width), jnp.bfloat16),
        "dt": jax.nn.softplus(jax.random.normal(keys[1], (batch, length, heads)) - 4.0),
        "A": -jnp.arange(1.0, heads + 1),
        "B": jax.random.normal(keys[2], per_state, jnp.bfloat16),
        "C": jax.random.normal(keys[3], per_state, jnp.bfloat16),
        "D": jnp.ones(heads),
    }
    few = {name: x[:2] if x.ndim > 1 else x for name, x in inputs.items()}
    wide = {name: x.astype(jnp.float32) for name, x in few.items()}
    shape = f"B{batch} L{length} H{heads} P{width} N{states} bf16"
    with jax.default_matmul_precision("highest"):
        want = np.asarray(ssd(**wide, implementation="reference"), np.float64)
        got = ssd(**few, implementation="chunked").astype(jnp.float32)
        yield compared("ssd", f"{shape}, values", {"y": largest_error(got, want)}, BFLOAT16)
    yield from speed_rows("ssd", shape, ssd, inputs, sizes)


def check_causal_conv1d(sizes: Sizes) -> Iterator[Row]:
    """Against the oracle; then speed and memory at full size."""
    normal = np.random.default_rng(0).standard_normal
    batch, length, channels, width = 2, 30, 6, 4
    arguments = {
        "x": normal((batch, length, channels)),
        "weight": normal((channels, width)),
        "bias": normal(channels),
        "initial_state": normal((batch, width - 1, channels)),
    }
    run = functools.partial(causal_conv1d, activation="silu", return_final_state=True)
    oracle = functools.partial(causal_conv1d_oracle, activation="silu")
    marks = make_marks(batch, length)
    yield from oracle_rows("causal_conv1d", "xla", run, oracle, arguments | marks)

    shape = (sizes.batch, sizes.length, sizes.channels)
    inputs = {
        "x": jax.random.normal(jax.random.key(0), shape, jnp.bfloat16),
        "weight": jnp.ones((sizes.channels, width)),
    }
    case = "B{} L{} D{} bf16".format(*shape)
    run = functools.partial(causal_conv1d, activation="silu")
    yield from speed_rows("causal_conv1d", case, run, inputs, sizes)
    masked = functools.partial(run, mask=jnp.ones(shape[:2], bool).at[:, -7:].set(False))
    yield from speed_rows("causal_conv1d", f"{case}, masked", masked, inputs, sizes)


def check_attention(sizes: Sizes) -> Iterator[Row]:
    """Each path against float64; then speed and memory at full size."""
    normal = np.random.default_rng(0).standard_normal
    batch, length, heads, width = 3, 64, 4, 64
    small = {name: normal((batch, length, heads, width)) for name in ("query", "key", "value")}
    mask = np.arange(length)[None, :] < np.array([64, 10, 33])[:, None]
    on_gpu = jax.default_backend() == "gpu"
    paths: dict[str, tuple[type, dict[str, Any]]] = {
        "xla": (jnp.float32, {"implementation": "xla"}),
        "xla bf16": (jnp.bfloat16, {"implementation": "xla"}),
    }
    if on_gpu:
        paths["cudnn bf16"] = (jnp.bfloat16, {"implementation": "cudnn"})
    for name, (dtype, options) in paths.items():
        inputs = {key: jnp.asarray(value, dtype) for key, value in small.items()}
        exact = {key: np.asarray(value, np.float64) for key, value in inputs.items()}
        for is_causal in (False, True):
            with jax.default_matmul_precision("highest"):
                got = attention(
                    **inputs, mask=jnp.asarray(mask), is_causal=is_causal, **options
                ).astype(jnp.float32)
            errors = {"values": largest_error(got, attention_oracle(exact, mask, is_causal))}
            case = f"{name}, causal" if is_causal else name
            allowed = VALUES if dtype == jnp.float32 else BFLOAT16
            yield compared("attention", case, errors, allowed)

    shape = (sizes.batch, sizes.length, sizes.heads, 64)
    keys = jax.random.split(jax.random.key(0), 3)
    inputs = {
        name: jax.random.normal(key, shape, jnp.bfloat16)
        for name, key in zip(("query", "key", "value"), keys, strict=True)
    }
    full_mask = jnp.ones(shape[:2], bool).at[:, -7:].set(False)
    dropping = {"dropout_rate": 0.1, "dropout_key": jax.random.key(1)}
    timed: dict[str, dict[str, Any]] = {
        "xla": {"implementation": "xla", "mask": full_mask},
        "xla, dropout 0.1": {"implementation": "xla", "mask": full_mask, **dropping},
    }
    if on_gpu:
        timed["cudnn"] = {"implementation": "cudnn"}
        timed["cudnn, masked"] = {"implementation": "cudnn", "mask": full_mask}
    case = "B{} L{} H{} K{} bf16".format(*shape)
    for name, options in timed.items():
        run = functools.partial(attention, **options)
        yield from speed_rows("attention", f"{name}, {case}", run, inputs, sizes)


def attention_oracle(
    inputs: dict[str, np.ndarray], mask: np.ndarray, is_causal: bool
) -> np.ndarray:
    """Softmax attention in float64."""
    query, key, value = inputs["query"], inputs["key"], inputs["value"]
    scores = np.einsum("blhk,bshk->bhls", query, key) / np.sqrt(query.shape[-1])
    allowed = np.broadcast_to(mask[:, None, None, :], scores.shape)
    if is_causal:
        allowed = np.tril(allowed)
    weights = np.where(allowed, np.exp(scores), 0.0)
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.einsum("bhls,bshk->blhk", weights, value)


def check_norms_and_dropout(sizes: Sizes) -> Iterator[Row]:
    """Norms against float64, dropout's rate; then speed."""
    random = np.random.default_rng(0)
    x, weight, bias = (random.standard_normal(shape) for shape in ((5, 64), 64, 64))
    wide = (jnp.asarray(array, jnp.float32) for array in (x, weight, bias))
    x32, weight32, bias32 = wide
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
    dropped = dropout(jnp.ones(1 << 20), 0.1, jax.random.key(0))
    # Five standard deviations of a fraction of 2^20 draws.
    errors = {"rate": abs(float(jnp.mean(dropped == 0)) - 0.1)}
    yield compared("dropout", "rate", errors, 5 * 0.3 / 2**10)

    shape = (sizes.batch, sizes.length, sizes.channels)
    inputs = {"x": jax.random.normal(jax.random.key(0), shape, jnp.bfloat16)}
    case = "B{} L{} D{} bf16".format(*shape)
    run = functools.partial(rms_norm, weight=jnp.ones(sizes.channels), epsilon=1e-5)
    yield from speed_rows("norms", f"rms_norm, {case}", run, inputs, sizes)
    run = functools.partial(dropout, rate=0.1, key=jax.random.key(0))
    yield from speed_rows("dropout", case, run, inputs, sizes)
