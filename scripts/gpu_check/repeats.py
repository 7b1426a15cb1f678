"""Checks that the same arguments give the same bits, run after run."""

from collections.abc import Callable, Iterator

import jax

from scripts.gpu_check.poison import MAY_DIFFER, same_bits, subjects, with_gradients
from scripts.gpu_check.rows import Row, Sizes, go_on


def check_repeats(sizes: Sizes) -> Iterator[Row]:
    """Values and gradients, `sizes.repeats` times."""
    for name, function, inputs in subjects(sizes):
        rows = _repeated(name, function, inputs, times=sizes.repeats)
        yield from go_on("repeats", name, rows)


def _repeated(
    name: str, function: Callable[..., jax.Array], inputs: dict[str, jax.Array], *, times: int
) -> Iterator[Row]:
    run = jax.jit(with_gradients(function))
    first = run(inputs)
    different = sum(not same_bits(first, run(inputs)) for _ in range(times - 1))
    may_differ = name in MAY_DIFFER
    yield Row(
        "repeats",
        f"{name}, {times} runs",
        ok=different == 0 or may_differ,
        measured={"different": float(different)},
        note="reported, not demanded" if may_differ else "the same bits",
    )
