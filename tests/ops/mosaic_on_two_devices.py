"""The Mosaic scan's batch on two devices, which the CPU stands in for: prints what became of it.

No CPU runs the kernels, and their interpreter cannot be spread over devices. So the specification
stands in for the kernels beneath the part that spreads them.
"""

import json
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxrank.ops.selective_scan.mosaic import gradient, selective_scan_mosaic
from jaxrank.ops.selective_scan.mosaic.backward import Cotangents
from jaxrank.ops.selective_scan.mosaic.forward import Outputs
from jaxrank.ops.selective_scan.mosaic.operands import Operands
from jaxrank.ops.selective_scan.reference import selective_scan_reference
from jaxrank.ops.selective_scan.tokens import Arguments
from tests.ops.selective_scan_cases import (
    differentiable,
    make_arguments,
    make_cotangents,
    to_jax,
)

ROWS = ("plain", "tail masked", "resets", "holes")


def stand_in(operands: Operands, state: jax.Array) -> tuple[jax.Array, jax.Array]:
    u, delta, z, A, B, C, D, delta_bias, forget = operands
    state, reset = jnp.swapaxes(state, 1, 2), forget > 0
    y, state = selective_scan_reference(
        Arguments(u, delta, A.T, B, C, D, z, delta_bias, True, state, reset, None)
    )
    return y, jnp.swapaxes(state, 1, 2)


def run_forward(operands: Operands, state: jax.Array, segments: int, **how: Any) -> Outputs:
    y, final_state = stand_in(operands, state)
    return Outputs(y, final_state, state[:, None] if how["keep"] else None)


def run_backward(
    operands: Operands,
    kept: jax.Array,
    y_bar: jax.Array,
    state_bar: jax.Array,
    segments: int,
    **how: Any,
) -> Cotangents:
    _, pull = jax.vjp(stand_in, operands, kept[:, 0])
    bars, state = pull((y_bar, state_bar))
    return Cotangents(*bars[:-1], state)


def with_gradients(scan: Any, arrays: dict, cotangents: tuple) -> tuple[Any, dict]:
    moving = {name: arrays[name] for name in differentiable(arrays)}
    values, pull = jax.vjp(lambda moving: scan(Arguments(**arrays | moving, softplus=True)), moving)
    return values, pull(cotangents)[0]


gradient.require_cuda = lambda x: x
gradient.run_forward_split, gradient.run_backward_split = run_forward, run_backward

arguments = make_arguments(16, rows=ROWS, channels=128, states=4)
arrays = to_jax(arguments)
cotangents = tuple(jnp.asarray(bar, jnp.float32) for bar in make_cotangents(arguments))
want = jax.jit(lambda *bars: with_gradients(selective_scan_reference, *bars))(arrays, cotangents)

mesh = Mesh(
    np.array(jax.devices()).reshape(2, 1), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2
)


def place(x: jax.Array) -> jax.Array:
    axes = ("data", "fsdp") if x.shape[0] == len(ROWS) else None
    return jax.device_put(x, NamedSharding(mesh, PartitionSpec(axes)))


arrays, cotangents = jax.tree.map(place, (arrays, cotangents))
function = jax.jit(lambda *bars: with_gradients(selective_scan_mosaic, *bars))
compiled = function.lower(arrays, cotangents).compile()
text = compiled.as_text()
got = compiled(arrays, cotangents)
errors = {}
for (path, have), value in zip(
    jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), strict=True
):
    error = np.max(np.abs(np.asarray(have) - value)) / np.max(np.abs(value))
    errors[jax.tree_util.keystr(path)] = float(error)
result = {
    "devices": jax.device_count(),
    "gathers": sum(text.count(f"{name}(") for name in ("all-gather", "all-to-all")),
    "additions": text.count("all-reduce("),
    "errors": errors,
}
sys.stdout.write(json.dumps(result))
