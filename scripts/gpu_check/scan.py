"""Checks of the selective scan: every implementation, and the Mosaic kernels in all their cases."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrank.ops.selective_scan import IMPLEMENTATIONS, selective_scan
from jaxrank.ops.selective_scan.tokens import Arguments
from scripts.gpu_check.adjoint import selective_scan_adjoint
from scripts.gpu_check.comparing import compare
from scripts.gpu_check.inputs import full_scan, make_marks, random_scan
from scripts.gpu_check.rows import (
    BFLOAT16,
    GRADIENTS,
    Row,
    Sizes,
    compared,
    errors_on_device,
    go_on,
)

MOSAIC = "mosaic"
CHANNELS, STATES = 128, 16
MAY_BE_ABSENT = ("D", "z", "delta_bias", "initial_state", "reset", "mask")


def check_selective_scan(sizes: Sizes) -> Iterator[Row]:
    """Each implementation but Mosaic's against float64, then in bfloat16 at full size."""
    random = np.random.default_rng(sizes.seed)
    arguments = random_scan(random, 2, 70, 8, 4) | make_marks(random, 2, 70)
    names = [name for name in IMPLEMENTATIONS if name != MOSAIC]
    for name in names:
        run = functools.partial(selective_scan, return_final_state=True, implementation=name)
        yield from compare(
            "selective_scan", name, run, selective_scan_adjoint, arguments, seed=sizes.seed
        )
    few = {
        name: value[:2] if value.ndim == 3 else value
        for name, value in full_scan(sizes, sizes.channels).items()
    }
    wide = {name: value.astype(jnp.float32) for name, value in few.items()}
    shape = f"2 x {sizes.length}, D {sizes.channels}, bf16, values"
    want = {"y": selective_scan(**wide, implementation="reference")}

    def at_full_size(name: str) -> Iterator[Row]:
        got = {"y": selective_scan(**few, implementation=name)}
        errors = errors_on_device(got, want)
        yield compared("selective_scan", f"{name}, {shape}", errors, BFLOAT16)

    for name in names:
        yield from go_on("selective_scan", f"{name}, {shape}", at_full_size(name))


def check_mosaic_scan(sizes: Sizes) -> Iterator[Row]:
    """The kernels against float64 in all cases, cut against whole, and at full size."""
    run, obstacle = mosaic_scan(sizes)
    if run is None:
        yield Row("mosaic_scan", "all", ok=None, note=obstacle)
        return
    random = np.random.default_rng(sizes.seed)
    for length in sizes.scan_lengths:
        arguments = random_scan(random, 2, length, CHANNELS, STATES)
        arguments |= make_marks(random, 2, length)
        yield from compare(
            "mosaic_scan", f"all options, L {length}", run, selective_scan_adjoint, arguments,
            seed=sizes.seed,
        )  # fmt: skip
    yield from _options(sizes, random, run)
    yield from _cut(sizes, random, run)
    for channels in sizes.scan_channels:
        for dtype in (jnp.float32, jnp.bfloat16):
            case = f"D {channels}, {jnp.dtype(dtype).name}"
            yield from go_on("mosaic_scan", case, _at_full_size(sizes, channels, dtype, run))


def mosaic_scan(sizes: Sizes) -> tuple[Callable[..., Any] | None, str]:
    """The kernels as a function of named arguments, interpreted on a CPU; or why there are none."""
    if not sizes.has_mosaic:
        return None, "left out: an earlier check of it did not end by itself"
    try:
        from jax.experimental.pallas import mosaic_gpu as plgpu

        from jaxrank.ops.selective_scan.mosaic import selective_scan_mosaic
    except ImportError as error:
        return None, f"cannot be imported: {error}"
    interpret = None
    if jax.default_backend() != "gpu":
        if not hasattr(plgpu, "InterpretGPUParams"):
            return None, (
                f"jax {jax.__version__} has no interpreter for it, 0.11.2 has; after `bash "
                "scripts/setup.sh kernels`: PYTHON=.venv-kernels/bin/python"
            )
        interpret = plgpu.InterpretGPUParams(uninitialized_memory="nan")
    elif float(jax.devices()[0].compute_capability) < 9.0:
        return None, "it needs a GPU of the Hopper generation or newer"

    def run(*, segments: int | None = None, softplus: bool = True, **given: Any) -> Any:
        if given.get("initial_state") is None:
            shape = (len(given["u"]), *given["A"].shape)
            given["initial_state"] = jnp.zeros(shape, jnp.float32)
        named = {name: given.get(name) for name in Arguments._fields if name != "softplus"}
        arguments = Arguments(**named, softplus=softplus)
        return selective_scan_mosaic(arguments, segments=segments, interpret=interpret)

    return run, ""


def _options(sizes: Sizes, random: np.random.Generator, run: Callable[..., Any]) -> Iterator[Row]:
    """Each optional argument left out, all left out, no softplus, bfloat16, other states."""
    length = sizes.scan_lengths[-1] if sizes.is_toy else 100
    everything = random_scan(random, 2, length, CHANNELS, STATES) | make_marks(random, 2, length)
    singly = [] if sizes.is_toy else [(name,) for name in MAY_BE_ABSENT]
    for names in [*singly, MAY_BE_ABSENT]:
        some = {name: value for name, value in everything.items() if name not in names}
        case = f"without {', '.join(names)}" if len(names) == 1 else "without any option"
        yield from compare("mosaic_scan", case, run, selective_scan_adjoint, some, seed=sizes.seed)
    yield from compare(
        "mosaic_scan", "bf16", run, selective_scan_adjoint, everything,
        seed=sizes.seed, dtype=jnp.bfloat16,
    )  # fmt: skip
    if sizes.is_toy:
        return
    steps = {**everything, "delta": np.exp(everything["delta"]), "delta_bias": np.zeros(CHANNELS)}
    yield from compare(
        "mosaic_scan", "without softplus", functools.partial(run, softplus=False),
        functools.partial(selective_scan_adjoint, softplus=False), steps, seed=sizes.seed,
    )  # fmt: skip
    for states in (4, 8, 32):
        arguments = random_scan(random, 2, length, CHANNELS, states)
        yield from compare(
            "mosaic_scan", f"N {states}", run, selective_scan_adjoint,
            arguments | make_marks(random, 2, length), seed=sizes.seed,
        )  # fmt: skip


def _cut(sizes: Sizes, random: np.random.Generator, run: Callable[..., Any]) -> Iterator[Row]:
    """Sequences cut into segments against float64, which the whole ones have met."""
    length, segments = (40, 2) if sizes.is_toy else (700, 4)
    arguments = random_scan(random, 2, length, CHANNELS, STATES) | make_marks(random, 2, length)
    cut = functools.partial(run, segments=segments)
    case = f"in {segments} segments, L {length}"
    yield from compare("mosaic_scan", case, cut, selective_scan_adjoint, arguments, seed=sizes.seed)


def _at_full_size(
    sizes: Sizes, channels: int, dtype: Any, run: Callable[..., Any]
) -> Iterator[Row]:
    """Values and gradients against the associative scan, which has met float64.

    On a GPU by the public name. In bfloat16 both read the same rounded numbers.
    """
    inputs = full_scan(sizes, channels, dtype)
    y_bar = jax.random.normal(jax.random.key(sizes.seed + 1), inputs["u"].shape, dtype)

    def mosaic(**arguments: jax.Array) -> jax.Array:
        if jax.default_backend() == "gpu":
            return selective_scan(**arguments, implementation=MOSAIC)
        return run(**arguments)[0]

    def gradients(function: Callable[..., jax.Array]) -> dict[str, jax.Array]:
        @jax.jit
        def both(inputs: dict[str, jax.Array]) -> dict[str, jax.Array]:
            y, pull = jax.vjp(lambda inputs: function(**inputs), inputs)
            return {"y": y, **pull(y_bar)[0]}

        return both(inputs)

    want = gradients(functools.partial(selective_scan, implementation="associative"))
    errors = errors_on_device(gradients(mosaic), want)
    name = jnp.dtype(dtype).name
    yield compared(
        "mosaic_scan",
        f"{sizes.batch} x {sizes.length}, D {channels}, {name}, to associative",
        errors,
        BFLOAT16 if dtype == jnp.bfloat16 else GRADIENTS,
    )
