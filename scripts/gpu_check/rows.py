"""Rows of the table that the GPU checks fill: comparisons and measurements."""

import traceback
from collections.abc import Iterator, Mapping
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
    """Shapes of the checks, and the seed of all random inputs; those of mamba-130m, or toys."""

    batch: int = 64
    length: int = 512
    channels: int = 1536
    heads: int = 12
    repeats: int = 20
    scan_channels: tuple[int, ...] = (1536, 2048, 3072)
    """Full sizes at which the Mosaic scan meets the associative one: 130m, 370m, 790m."""
    scan_lengths: tuple[int, ...] = (1, 17, 100, 512, 4096)
    """At which the Mosaic scan meets float64, with 128 channels."""
    is_toy: bool = False
    seed: int = 0
    has_mosaic: bool = True
    """False: keep off the Mosaic kernels, as after they have hung or killed a process."""


TOY_SIZES = Sizes(
    batch=2,
    length=40,
    channels=32,
    heads=2,
    repeats=2,
    scan_channels=(128,),
    scan_lengths=(1, 17),
    is_toy=True,
)


@dataclass(frozen=True)
class Row:
    """One line of the table: a comparison (error, allowed) or a measurement, or both."""

    check: str
    case: str
    ok: bool | None = True
    """None: it could not run here; the note says why."""
    error: float | None = None
    allowed: float | None = None
    measured: dict[str, float] = field(default_factory=dict)
    note: str = ""
    benchmark: Mapping[str, Any] | None = None
    """The row of `jaxrank.benchmarking` that this one shows, as plain values."""


def go_on(check: str, case: str, rows: Iterator[Row]) -> Iterator[Row]:
    """The rows of a case; an exception is a failed row, and the next case runs."""
    try:
        yield from rows
    except Exception as error:
        traceback.print_exc()
        yield Row(check, f"{case}, stopped", ok=False, note=f"{type(error).__name__}: {error}")


def compared(check: str, case: str, errors: dict[str, float], allowed: float) -> Row:
    """Build the row of a comparison; its note names the argument with the largest error."""
    # A NaN is the worst of all, and max would pass over it.
    worst = max(errors, key=lambda name: np.nan_to_num(errors[name], nan=np.inf))
    return Row(
        check,
        case,
        bool(errors[worst] <= allowed),
        float(errors[worst]),
        allowed,
        note=f"worst: {worst}",
    )


def errors_on_device(got: dict[str, jax.Array], want: dict[str, jax.Array]) -> dict[str, float]:
    """As `largest_error` of each array, in float32 on the device, for what is large."""

    @jax.jit
    def error(got: jax.Array, want: jax.Array) -> jax.Array:
        got, want = got.astype(jnp.float32), want.astype(jnp.float32)
        scale = jnp.max(jnp.abs(want))
        worst = jnp.max(jnp.abs(got - want)) / jnp.where(scale > 0, scale, 1.0)
        return jnp.where(jnp.all(jnp.isfinite(got)), worst, jnp.inf)

    return {name: float(error(got[name], want[name])) for name in want}


def format_row(row: Row) -> str:
    """Format one line of the table."""
    parts = []
    if row.error is not None:
        parts.append(f"error {row.error:.1e} (allowed {row.allowed:.1e})")
    parts += [f"{name} {value:.4g}" for name, value in row.measured.items()]
    text = "  ".join([*parts, row.note.splitlines()[0] if row.note else ""])
    verdict = {True: "ok  ", False: "FAIL", None: "none"}[row.ok]
    return f"{verdict} {row.check:15} {row.case:48} {text}".rstrip()
