"""The kernels on a batch that is spread over devices: each takes the sequences that it has.

XLA cannot look into a kernel, so left alone it would gather the whole batch on every device. Here
it is told that the kernels may be cut along the batch and along nothing else. On one device all of
this vanishes when the function is lowered.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.experimental.custom_partitioning import (
    ArrayMapping,
    SdyShardingRule,
    custom_partitioning,
)
from jax.sharding import NamedSharding, PartitionSpec

BATCH = "batch"


def cut_along_batch(function: Callable[..., Any], *, whole_arguments: int) -> Callable[..., Any]:
    """Let `function(how, batched, whole) -> batched` run on a part of the batch.

    `batched` are trees of arrays whose first axis is the batch, `whole` trees of arrays without
    it, as many as is said here, which are on every device. `how` is static.
    """

    @functools.partial(custom_partitioning, static_argnums=(0,))
    def run(how: Any, batched: Any, whole: Any) -> Any:
        return function(how, batched, whole)

    def partition(how: Any, mesh: Any, arguments: Any, results: Any) -> Any:
        first = jax.tree.leaves(arguments[0])[0].sharding
        axes = first.spec[0] if first.spec else None

        cut = NamedSharding(first.mesh, PartitionSpec(axes))
        copied = NamedSharding(first.mesh, PartitionSpec())

        def run_part(batched: Any, whole: Any) -> Any:
            return function(how, batched, whole)

        batched, whole = arguments
        return (
            first.mesh,
            run_part,
            jax.tree.map(lambda _: cut, results),
            (jax.tree.map(lambda _: cut, batched), jax.tree.map(lambda _: copied, whole)),
        )

    def rule(how: Any, mesh: Any, arguments: list[Any], results: list[Any]) -> SdyShardingRule:
        uncut: list[str] = []

        def name_axes(types: list[Any], whole: int) -> tuple[ArrayMapping, ...]:
            mappings = []
            for index, array in enumerate(types):
                batched = index < len(types) - whole
                others = [f"axis{len(uncut) + i}" for i in range(array.rank - batched)]
                uncut.extend(others)
                mappings.append(ArrayMapping(*[BATCH] * batched, *others))
            return tuple(mappings)

        return SdyShardingRule(
            name_axes(arguments, whole_arguments),
            name_axes(results, 0),
            need_replication_factors=tuple(uncut),
        )

    run.def_partition(partition, sharding_rule=rule)
    return run
