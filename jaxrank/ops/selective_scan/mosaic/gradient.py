"""The kernels as one differentiable function of the operands and the initial state."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrank.ops.selective_scan.mosaic.backward import Cotangents
from jaxrank.ops.selective_scan.mosaic.cuda_only import require_cuda
from jaxrank.ops.selective_scan.mosaic.forward import Outputs
from jaxrank.ops.selective_scan.mosaic.mapped import fold_mapped_axis
from jaxrank.ops.selective_scan.mosaic.operands import Operands
from jaxrank.ops.selective_scan.mosaic.sharded import cut_along_batch
from jaxrank.ops.selective_scan.mosaic.split import (
    Segments,
    choose_segments,
    cut,
    run_backward_split,
    run_forward_split,
)

# The operands that each sequence has of its own, and those that all share.
HAVE_GRADIENTS = ("u", "delta", "z", "B", "C")
BY_SEQUENCE = (*HAVE_GRADIENTS, "forget")
WEIGHTS = ("A", "D", "delta_bias")

Weights = dict[str, jax.Array]


class How(NamedTuple):
    """What is known before the arrays are."""

    softplus: bool
    segments: int | None  # by default as many as `choose_segments` says
    interpret: Any
    keep: bool = False  # the states that the backward pass needs


def scan(how: How, operands: Operands, initial_state: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return y (B, L, D) and the final state (B, N, D)."""
    chosen = _compiled if how.interpret is None else _interpreted
    return chosen(how, operands, initial_state)


def _segments(how: How, operands: Operands) -> Segments:
    """How to cut `operands`: where a batch is spread over devices, what one of them has of it."""
    if how.segments is None:
        return choose_segments(*operands.u.shape)
    return cut(operands.u.shape[1], how.segments)


def _run_forward(how: How, batched: Any, weights: Weights) -> Outputs:
    by_sequence, initial_state = batched
    operands = Operands(**by_sequence, **weights)
    if how.interpret is None:
        operands = operands._replace(A=require_cuda(operands.A))
    return run_forward_split(
        operands,
        initial_state,
        _segments(how, operands),
        softplus=how.softplus,
        keep=how.keep,
        interpret=how.interpret,
    )


def _run_backward(how: How, batched: Any, weights: Weights) -> Cotangents:
    by_sequence, kept, y_bar, state_bar = batched
    operands = Operands(**by_sequence, **weights)
    return run_backward_split(
        operands,
        kept,
        y_bar,
        state_bar,
        _segments(how, operands),
        softplus=how.softplus,
        interpret=how.interpret,
    )


def _differentiable(
    run_forward: Callable[..., Any], run_backward: Callable[..., Any], *, optimize_remat: bool
) -> Callable[..., Any]:
    """One function, `scan` above, of the two."""

    def apart(operands: Operands, *more: jax.Array) -> tuple[Any, Weights]:
        """What differs from sequence to sequence, and what all of them share."""
        by_sequence, weights = (
            {name: getattr(operands, name) for name in names} for names in (BY_SEQUENCE, WEIGHTS)
        )
        return (by_sequence, *more), weights

    @functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
    def run(how: How, operands: Operands, initial_state: jax.Array) -> tuple[jax.Array, jax.Array]:
        outputs = run_forward(how, *apart(operands, initial_state))
        return outputs.y, outputs.final_state

    def forward(how: How, operands: Operands, initial_state: jax.Array) -> tuple[Any, Any]:
        outputs = run_forward(how._replace(keep=True), *apart(operands, initial_state))
        return (outputs.y, outputs.final_state), (operands, outputs.kept)

    def backward(how: How, saved: Any, cotangents: Any) -> tuple[Operands, jax.Array]:
        operands, kept = saved
        bars = run_backward(how, *apart(operands, kept, *cotangents))
        by_sequence = {name: getattr(bars, name) for name in HAVE_GRADIENTS}
        # Over all sequences, wherever they are.
        weights = {name: jnp.sum(getattr(bars, name), axis=0) for name in WEIGHTS}
        forget_bar = None if operands.forget is None else jnp.zeros_like(operands.forget)
        return Operands(**by_sequence, **weights, forget=forget_bar), bars.initial_state

    run.defvjp(forward, backward, optimize_remat=optimize_remat)
    return run


# Under jax.checkpoint the first run is then a forward pass that keeps no states.
_compiled = _differentiable(
    fold_mapped_axis(cut_along_batch(_run_forward, whole_arguments=len(WEIGHTS))),
    fold_mapped_axis(cut_along_batch(_run_backward, whole_arguments=len(WEIGHTS))),
    optimize_remat=True,
)
# An interpreter calls Python back, in order: that can be neither spread nor taken apart.
_interpreted = _differentiable(_run_forward, _run_backward, optimize_remat=False)
