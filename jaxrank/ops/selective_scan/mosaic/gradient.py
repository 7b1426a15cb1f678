"""The kernels as one differentiable function of the operands and the initial state."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrank.ops.selective_scan.mosaic.cuda_only import require_cuda
from jaxrank.ops.selective_scan.mosaic.forward import Outputs
from jaxrank.ops.selective_scan.mosaic.operands import Operands
from jaxrank.ops.selective_scan.mosaic.sharded import cut_along_batch
from jaxrank.ops.selective_scan.mosaic.split import run_backward_split, run_forward_split

# The operands that each sequence has of its own, and those that all share.
HAVE_GRADIENTS = ("u", "delta", "z", "B", "C")
BY_SEQUENCE = (*HAVE_GRADIENTS, "forget")
WEIGHTS = ("A", "D", "delta_bias")

Weights = dict[str, jax.Array]


class How(NamedTuple):
    """What is known before the arrays are."""

    softplus: bool
    segments: int
    interpret: Any
    keep: bool = False  # the states that the backward pass needs


def scan(how: How, operands: Operands, initial_state: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return y (B, L, D) and the final state (B, N, D)."""
    chosen = _compiled if how.interpret is None else _interpreted
    return chosen(how, operands, initial_state)


def _run_forward(how: How, batched: Any, weights: Weights) -> tuple[Outputs, None]:
    by_sequence, initial_state = batched
    operands = Operands(**by_sequence, **weights)
    if how.interpret is None:
        operands = operands._replace(A=require_cuda(operands.A))
    outputs = run_forward_split(
        operands,
        initial_state,
        how.segments,
        softplus=how.softplus,
        keep=how.keep,
        interpret=how.interpret,
    )
    return outputs, None


def _run_backward(how: How, batched: Any, weights: Weights) -> tuple[Any, Weights]:
    by_sequence, kept, y_bar, state_bar = batched
    bars = run_backward_split(
        Operands(**by_sequence, **weights),
        kept,
        y_bar,
        state_bar,
        how.segments,
        softplus=how.softplus,
        interpret=how.interpret,
    )
    by_sequence, of_weights = (
        {name: getattr(bars, name) for name in names} for names in (HAVE_GRADIENTS, WEIGHTS)
    )
    return (by_sequence, bars.initial_state), of_weights


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
        outputs, _ = run_forward(how, *apart(operands, initial_state))
        return outputs.y, outputs.final_state

    def forward(how: How, operands: Operands, initial_state: jax.Array) -> tuple[Any, Any]:
        outputs, _ = run_forward(how._replace(keep=True), *apart(operands, initial_state))
        return (outputs.y, outputs.final_state), (operands, outputs.kept)

    def backward(how: How, saved: Any, cotangents: Any) -> tuple[Operands, jax.Array]:
        operands, kept = saved
        (bars, state_bar), weights_bar = run_backward(how, *apart(operands, kept, *cotangents))
        forget_bar = None if operands.forget is None else jnp.zeros_like(operands.forget)
        return Operands(**bars, **weights_bar, forget=forget_bar), state_bar

    run.defvjp(forward, backward, optimize_remat=optimize_remat)
    return run


# Under jax.checkpoint the first run is then a forward pass that keeps no states.
_compiled = _differentiable(
    cut_along_batch(_run_forward, whole_arguments=len(WEIGHTS), whole_results=0),
    cut_along_batch(_run_backward, whole_arguments=len(WEIGHTS), whole_results=len(WEIGHTS)),
    optimize_remat=True,
)
# An interpreter calls Python back, in order: that can be neither spread nor taken apart.
_interpreted = _differentiable(_run_forward, _run_backward, optimize_remat=False)
