"""`jax.vmap` of the kernels: the mapped axis becomes part of the batch.

A kernel reads one A, D and delta_bias for all rows of its batch. Where these are mapped themselves,
as in an ensemble of models, the kernel runs once for each of them, one after the other.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def fold_mapped_axis(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let `jax.vmap` map `function(how, batched, whole) -> batched`.

    `batched` are trees of arrays whose first axis is the batch, `whole` trees of arrays without it.
    `how` is static.
    """

    def run(how: Any, batched: Any, whole: Any) -> Any:
        @jax.custom_batching.custom_vmap
        def call(batched: Any, whole: Any) -> Any:
            return function(how, batched, whole)

        @call.def_vmap
        def map_call(size: int, is_mapped: Any, batched: Any, whole: Any) -> tuple[Any, Any]:
            batched_is_mapped, whole_is_mapped = is_mapped

            def run_one(index: jax.Array) -> Any:
                one = jax.tree.map(
                    lambda mapped, x: x[index] if mapped else x,
                    (batched_is_mapped, whole_is_mapped),
                    (batched, whole),
                )
                return call(*one)

            def fold(mapped: bool, x: jax.Array) -> jax.Array:
                every = x if mapped else jnp.broadcast_to(x, (size, *x.shape))
                return every.reshape(size * every.shape[1], *every.shape[2:])

            def unfold(x: jax.Array) -> jax.Array:
                return x.reshape(size, x.shape[0] // size, *x.shape[1:])

            if any(jax.tree.leaves(whole_is_mapped)):
                results = jax.lax.map(run_one, jnp.arange(size))
            else:
                folded = jax.tree.map(fold, batched_is_mapped, batched)
                results = jax.tree.map(unfold, call(folded, whole))
            return results, jax.tree.map(lambda _: True, results)

        return call(batched, whole)

    return run
