"""Checks of attention: each implementation in each of its cases, values and gradients."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrank.ops.attention import attention
from jaxrank.ops.attention.cudnn import cudnn_obstacle
from jaxrank.ops.oracle import largest_error
from scripts.gpu_check.adjoint import attention_adjoint
from scripts.gpu_check.inputs import random_attention
from scripts.gpu_check.rows import BFLOAT16, GRADIENTS, VALUES, Row, Sizes, compared, go_on

BATCH, HEADS, WIDTH = 3, 4, 64


@dataclass(frozen=True)
class Case:
    """What is asked for, and which keys each query may then attend to."""

    name: str
    options: dict[str, Any]
    allowed: np.ndarray
    """(B, 1, L, S)"""
    has_bias: bool = False


def check_attention(sizes: Sizes) -> Iterator[Row]:
    """Every case in float32 and bfloat16; what cuDNN cannot do says why."""
    implementations = ["xla", "blocks"]
    if jax.default_backend() == "gpu":
        implementations.append("cudnn")
    else:
        yield Row("attention", "cudnn", ok=None, note="it needs an NVIDIA GPU")
    # cuDNN's kernels differ by length; ours are the same code at all, and what they compile to in
    # bfloat16 needs no more than a few cases.
    for length in (sizes.length,) if sizes.is_toy else (510, 64, sizes.length):
        cases = _cases(sizes, length)
        for number, case in enumerate(cases[:3] if sizes.is_toy else cases):
            for name in implementations:
                for dtype in (jnp.float32, jnp.bfloat16)[name == "cudnn" :]:
                    is_first = length == 510 or sizes.is_toy
                    if name == "cudnn" or (is_first and (dtype == jnp.float32 or number < 3)):
                        title = f"{name} {jnp.dtype(dtype).name}, {case.name}, L {length}"
                        rows = _compare(sizes, length, case, name, dtype, title)
                        yield from go_on("attention", title, rows)


def _cases(sizes: Sizes, length: int) -> list[Case]:
    """Padding, causal, windows, a bias, packed texts, and some of them together."""
    random = np.random.default_rng(sizes.seed)
    keys = np.arange(length)
    lengths = np.array([length, length // 6 + 1, length // 2])
    right = keys < lengths[:, None]
    holes = random.random((BATCH, length)) < 0.7
    holes[:, 0] = True
    behind = keys[:, None] - keys[None, :]
    causal, near = behind >= 0, np.abs(behind) <= length // 8
    segments = np.sort(random.integers(1, 4, (BATCH, length)), axis=1)
    own = segments[:, :, None] == segments[:, None, :]
    ids = jnp.asarray(segments, jnp.int32)
    everything = np.ones((BATCH, 1, length, length), bool)
    padded = everything & right[:, None, None, :]
    key_lengths = jnp.asarray(lengths, jnp.int32)
    window = length // 8
    return [
        Case("bias lengths", {"key_lengths": key_lengths}, padded, has_bias=True),
        Case("packed", {"segment_ids": ids}, everything & own[:, None]),
        Case(
            "causal lengths", {"key_lengths": key_lengths, "is_causal": True}, padded & causal
        ),
        Case("all", {}, everything),
        Case("lengths", {"key_lengths": key_lengths}, padded),
        Case("mask", {"mask": jnp.asarray(holes)}, everything & holes[:, None, None, :]),
        Case("causal", {"is_causal": True}, everything & causal),
        Case("bias", {}, everything, has_bias=True),
        Case("causal bias", {"is_causal": True}, everything & causal, has_bias=True),
        Case(
            "causal window", {"is_causal": True, "window": window}, everything & causal & near
        ),
        Case("window", {"window": window}, everything & near),
        Case(
            "packed causal", {"segment_ids": ids, "is_causal": True},
            everything & causal & own[:, None],
        ),
    ]  # fmt: skip


def _compare(
    sizes: Sizes, length: int, case: Case, name: str, dtype: Any, title: str
) -> Iterator[Row]:
    random = np.random.default_rng(sizes.seed + length)
    arrays = random_attention(random, BATCH, length, HEADS, WIDTH)
    if case.has_bias:
        arrays["bias"] = random.standard_normal((1, HEADS, length, length))
    moving = {key: jnp.asarray(value, dtype) for key, value in arrays.items()}
    exact = {key: np.asarray(value, np.float64) for key, value in moving.items()}
    output_bar = jnp.asarray(random.standard_normal(exact["query"].shape), dtype)

    @jax.jit
    def both(moving: dict[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
        output, pull = jax.vjp(
            lambda moving: attention(**moving, **case.options, implementation=name), moving
        )
        return output, pull(output_bar)[0]

    obstacle = cudnn_obstacle(moving["query"], moving["key"], 0.0) if name == "cudnn" else None
    if obstacle is not None:
        yield Row("attention", title, ok=None, note=obstacle)
        return
    with jax.default_matmul_precision("highest"):
        output, gradients = both(moving)
    wanted, wanted_gradients = attention_adjoint(
        exact, np.asarray(output_bar, np.float64), case.allowed, bias=exact.get("bias")
    )
    is_narrow = dtype != jnp.float32
    errors = {"values": largest_error(output.astype(jnp.float32), wanted)}
    yield compared("attention", f"{title}, values", errors, BFLOAT16 if is_narrow else VALUES)
    errors = {
        key: largest_error(gradients[key].astype(jnp.float32), want)
        for key, want in wanted_gradients.items()
    }
    allowed = BFLOAT16 if is_narrow else GRADIENTS
    yield compared("attention", f"{title}, gradients", errors, allowed)
