"""The Mosaic scan on two devices, which the CPU stands in for: prints what became of it.

No CPU runs the kernels, and their interpreter cannot be spread over devices. So the specification
stands in for the kernels beneath the part that spreads them.
"""

import json
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxrank.ops.selective_scan.mosaic import gradient, selective_scan_mosaic
from jaxrank.ops.selective_scan.mosaic.split import Segments
from jaxrank.ops.selective_scan.reference import selective_scan_reference
from jaxrank.ops.selective_scan.tokens import Arguments
from tests.ops.mosaic_stand_in import replace_kernels
from tests.ops.selective_scan_cases import (
    differentiable,
    make_arguments,
    make_cotangents,
    to_jax,
)

ROWS = ("plain", "tail masked", "resets", "holes")
LENGTH, CHANNELS = 16, 128


def with_gradients(scan: Any, arrays: dict, cotangents: tuple) -> tuple[Any, dict]:
    moving = {name: arrays[name] for name in differentiable(arrays)}
    values, pull = jax.vjp(lambda moving: scan(Arguments(**arrays | moving, softplus=True)), moving)
    return values, pull(cotangents)[0]


def spread(x: jax.Array, devices: tuple[int, int]) -> jax.Array:
    """The batch over the axes "data" and "fsdp" together, weights over "fsdp" alone."""
    mesh = Mesh(
        np.array(jax.devices()).reshape(devices), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2
    )
    axes: Any = ("data", "fsdp") if x.shape[0] == len(ROWS) else "fsdp"
    return jax.device_put(x, NamedSharding(mesh, PartitionSpec(axes)))


def run_on(devices: tuple[int, int]) -> dict[str, Any]:
    """What came of a mesh of that shape."""
    placed = jax.tree.map(lambda x: spread(x, devices), (arrays, cotangents))
    function = jax.jit(lambda *bars: with_gradients(selective_scan_mosaic, *bars))
    compiled = function.lower(*placed).compile()
    text = compiled.as_text()
    got = compiled(*placed)
    errors = {}
    for (path, have), value in zip(
        jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), strict=True
    ):
        error = np.max(np.abs(np.asarray(have) - value)) / np.max(np.abs(value))
        errors[jax.tree_util.keystr(path)] = float(error)
    gathers = [
        line
        for line in text.splitlines()
        if "all-to-all(" in line or ("all-gather(" in line and f"{LENGTH},{CHANNELS}" in line)
    ]
    return {"gathers": len(gathers), "additions": text.count("all-reduce("), "errors": errors}


arguments = make_arguments(LENGTH, rows=ROWS, channels=CHANNELS, states=4)
arrays = to_jax(arguments)
cotangents = tuple(jnp.asarray(bar, jnp.float32) for bar in make_cotangents(arguments))
want = jax.jit(lambda *bars: with_gradients(selective_scan_reference, *bars))(arrays, cotangents)

with pytest.MonkeyPatch.context() as patch:
    cuts = replace_kernels(patch)
    # As if four rows were enough for a device, and two were not.
    patch.setattr(
        gradient,
        "choose_segments",
        lambda batch, length, channels: Segments(4 // batch, length * batch // 4),
    )
    # The second mesh has the weights in halves, the first one has them whole.
    meshes = {"batch": run_on((2, 1)), "weights": run_on((1, 2))}
result = {
    "devices": jax.device_count(),
    "segments": {str(rows): segments.number for rows, segments in cuts.items()},
    "meshes": meshes,
}
sys.stdout.write(json.dumps(result))
