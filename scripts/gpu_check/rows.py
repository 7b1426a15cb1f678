"""Rows of the table that the GPU checks fill: comparisons and measurements."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# A GPU's exp and reciprocal are a few units in the last place off, and a scan multiplies hundreds
# of them. Values and gradients in float32, and everything in bfloat16, which rounds at 4e-3.
VALUES, GRADIENTS, BFLOAT16 = 2e-5, 1e-4, 2e-2


@dataclass(frozen=True)
class Sizes:
    """Shapes of the measurements: those of mamba-130m and BERT-base, or toys."""

    batch: int = 64
    length: int = 512
    channels: int = 1536
    heads: int = 12
    repeats: int = 20


TOY_SIZES = Sizes(batch=2, length=40, channels=32, heads=2, repeats=2)


@dataclass(frozen=True)
class Row:
    """One line of the table: a comparison (error, allowed) or a measurement, or both."""

    check: str
    case: str
    ok: bool = True
    error: float | None = None
    allowed: float | None = None
    measured: dict[str, float] = field(default_factory=dict)
    note: str = ""


def compared(check: str, case: str, errors: dict[str, float], allowed: float) -> Row:
    """Build the row of a comparison; its note names the argument with the largest error."""
    worst = max(errors, key=lambda name: errors[name])
    return Row(
        check, case, errors[worst] <= allowed, errors[worst], allowed, note=f"worst: {worst}"
    )


def measure(function: Callable[..., Any], *arguments: Any, repeats: int) -> dict[str, float]:
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


def speed_rows(
    check: str, case: str, function: Callable[..., jax.Array], inputs: dict, sizes: Sizes
) -> Iterator[Row]:
    """Measure the function, and its value with the gradient to every input."""

    def loss(inputs: dict) -> jax.Array:
        return jnp.sum(function(**inputs).astype(jnp.float32))

    forward = measure(lambda inputs: function(**inputs), inputs, repeats=sizes.repeats)
    yield Row(check, f"{case}, forward", measured=forward)
    backward = measure(jax.value_and_grad(loss), inputs, repeats=sizes.repeats)
    yield Row(check, f"{case}, with gradients", measured=backward)


def format_row(row: Row) -> str:
    """Format one line of the table."""
    parts = []
    if row.error is not None:
        parts.append(f"error {row.error:.1e} (allowed {row.allowed:.1e})")
    parts += [f"{name} {value:.4g}" for name, value in row.measured.items()]
    text = "  ".join([*parts, row.note.splitlines()[0] if row.note else ""])
    return f"{'ok  ' if row.ok else 'FAIL'} {row.check:15} {row.case:48} {text}".rstrip()
