"""The specification in the place of the Mosaic scan's kernels: a CPU runs what is around them."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxrank.ops.selective_scan.mosaic import gradient
from jaxrank.ops.selective_scan.mosaic.backward import Cotangents
from jaxrank.ops.selective_scan.mosaic.forward import Outputs
from jaxrank.ops.selective_scan.mosaic.operands import Operands
from jaxrank.ops.selective_scan.mosaic.split import Segments
from jaxrank.ops.selective_scan.reference import selective_scan_reference
from jaxrank.ops.selective_scan.tokens import Arguments

# How each batch, of so many rows, was cut.
Cuts = dict[int, Segments]


def replace_kernels(patch: pytest.MonkeyPatch) -> Cuts:
    """Replace the kernels; what is returned fills up as they are called."""
    cuts: Cuts = {}

    def run_forward(
        operands: Operands, state: jax.Array, segments: Segments, *, keep: bool, **_: Any
    ) -> Outputs:
        cuts[operands.u.shape[0]] = segments
        y, final_state = _run(operands, state)
        return Outputs(y, final_state, state[:, None] if keep else None)

    def run_backward(
        operands: Operands,
        kept: jax.Array,
        y_bar: jax.Array,
        state_bar: jax.Array,
        segments: Segments,
        **_: Any,
    ) -> Cotangents:
        assert cuts[operands.u.shape[0]] == segments

        def run_row(of_row: tuple, y_bar: jax.Array, state_bar: jax.Array) -> Cotangents:
            one = jax.tree.map(lambda x: x[None], (of_row, y_bar, state_bar))
            (moving, state), *cotangents = one

            def run(weights: dict, moving: dict, state: jax.Array) -> tuple[jax.Array, jax.Array]:
                return _run(Operands(**moving, **weights), state)

            _, pull = jax.vjp(run, weights, moving, state)
            of_weights, of_row, state_bar = pull(tuple(cotangents))
            of_row, state_bar = jax.tree.map(lambda x: x[0], (of_row, state_bar))
            del of_row["forget"]
            return Cotangents(**of_row, **of_weights, initial_state=state_bar)

        weights = {name: getattr(operands, name) for name in gradient.WEIGHTS}
        moving = {name: getattr(operands, name) for name in gradient.BY_SEQUENCE}
        return jax.vmap(run_row)((moving, kept[:, 0]), y_bar, state_bar)

    patch.setattr(gradient, "require_cuda", lambda x: x)
    patch.setattr(gradient, "run_forward_split", run_forward)
    patch.setattr(gradient, "run_backward_split", run_backward)
    return cuts


def _run(operands: Operands, state: jax.Array) -> tuple[jax.Array, jax.Array]:
    u, delta, z, A, B, C, D, delta_bias, forget = operands
    reset = None if forget is None else forget > 0
    state = jnp.swapaxes(state, 1, 2)
    y, state = selective_scan_reference(
        Arguments(u, delta, A.T, B, C, D, z, delta_bias, True, state, reset, None)
    )
    return y, jnp.swapaxes(state, 1, 2)
