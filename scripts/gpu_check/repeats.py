"""Checks that the same arguments give the same bits, run after run."""

from collections.abc import Iterator

import jax

from scripts.gpu_check.poison import same_bits, subjects, with_gradients
from scripts.gpu_check.rows import Row, Sizes

MAY_DIFFER = ("attention cudnn",)
"""cuDNN adds up a backward pass in any order; it is reported and not demanded."""


def check_repeats(sizes: Sizes) -> Iterator[Row]:
    """Values and gradients, `sizes.repeats` times."""
    for name, function, inputs in subjects(sizes):
        run = jax.jit(with_gradients(function))
        first = run(inputs)
        different = sum(not same_bits(first, run(inputs)) for _ in range(sizes.repeats - 1))
        may_differ = name in MAY_DIFFER
        yield Row(
            "repeats",
            f"{name}, {sizes.repeats} runs",
            ok=different == 0 or may_differ,
            measured={"different": float(different)},
            note="reported, not demanded" if may_differ else "the same bits",
        )
