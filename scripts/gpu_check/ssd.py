"""Checks of Mamba-2's recurrence."""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from jaxrank.ops.oracle import ssd_oracle
from jaxrank.ops.ssd import ssd
from scripts.gpu_check.adjoint import ssd_adjoint
from scripts.gpu_check.comparing import by_complex_steps, compare
from scripts.gpu_check.inputs import full_ssd, make_marks, random_ssd
from scripts.gpu_check.rows import BFLOAT16, Row, Sizes, compared, errors_on_device, go_on


def check_ssd(sizes: Sizes) -> Iterator[Row]:
    """Both implementations at small sizes; the real widths of heads; bfloat16 at full size."""
    random = np.random.default_rng(sizes.seed)
    arguments = random_ssd(random, 2, 20, 4, 3, 2, groups=2) | make_marks(random, 2, 20)
    for name, options in {"reference": {}, "chunked": {"chunk": 8}}.items():
        run = functools.partial(ssd, return_final_state=True, implementation=name, **options)
        reference = by_complex_steps(ssd_oracle)
        yield from compare("ssd", name, run, reference, arguments, seed=sizes.seed)

    heads, width, states = (1, 16, 16) if sizes.is_toy else (2, 64, 128)
    run = functools.partial(ssd, return_final_state=True, implementation="chunked")
    length = sizes.length + 3  # no multiple of a chunk
    arguments = random_ssd(random, 2, length, heads, width, states) | make_marks(random, 2, length)
    for dtype in (jnp.float32, jnp.bfloat16):
        case = f"chunked, L {length} P {width} N {states} {jnp.dtype(dtype).name}"
        yield from compare("ssd", case, run, ssd_adjoint, arguments, seed=sizes.seed, dtype=dtype)
    yield from go_on("ssd", "at full size", _at_full_size(sizes))


def _at_full_size(sizes: Sizes) -> Iterator[Row]:
    """Values and gradients in bfloat16 against float32 at "highest" precision."""
    inputs = full_ssd(sizes)
    wide = {name: value.astype(jnp.float32) for name, value in inputs.items()}

    @jax.jit
    def both(inputs: dict[str, jax.Array], y_bar: jax.Array) -> dict[str, jax.Array]:
        y, pull = jax.vjp(lambda inputs: ssd(**inputs, implementation="chunked"), inputs)
        return {"y": y, **pull(y_bar.astype(y.dtype))[0]}

    y_bar = jax.random.normal(jax.random.key(sizes.seed + 1), inputs["x"].shape, jnp.bfloat16)
    with jax.default_matmul_precision("highest"):
        want = both(wide, y_bar)
    errors = errors_on_device(both(inputs, y_bar), want)
    heads = inputs["x"].shape[2]
    case = f"chunked, {sizes.batch} x {sizes.length}, H {heads}, bf16 to float32"
    yield compared("ssd", case, errors, BFLOAT16)
