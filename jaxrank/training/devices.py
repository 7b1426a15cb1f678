"""How a training state and its batches lie on many devices of one or several processes.

The devices form a mesh of two axes. Every parameter, and the optimizer's averages of it, is cut
along "fsdp" and copied along "data"; the groups of a batch are cut along both, so each device has
groups of its own. XLA then puts in what the devices must tell one another: weights are gathered
where a layer needs them, gradients are added up. The step itself knows nothing of devices.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxrank.errors import InputError
from jaxrank.shapes import Array, PyTree

DATA, FSDP = "data", "fsdp"

# A parameter with fewer numbers is copied: gathering it costs more than keeping it does.
_SMALLEST_CUT = 2**14


def make_mesh(fsdp: int) -> Mesh:
    """All devices of the run as a mesh of `fsdp` devices that share a copy, times the copies.

    The devices of a process stand side by side, so that a process's share of a batch is one piece
    of it. (`jax.make_mesh` may order them by the wires between them.)

    Raises:
        InputError: `fsdp` is no divisor of the number of devices, or the processes have different
            numbers of them.
    """
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    if len(devices) % fsdp:
        raise InputError(
            f"devices.fsdp: got {fsdp}; a divisor of the number of devices ({len(devices)}) is "
            "needed"
        )
    counts = Counter(device.process_index for device in devices)
    if len(set(counts.values())) > 1:
        shown = ", ".join(str(counts[process]) for process in sorted(counts))
        raise InputError(
            f"devices: the processes have {shown} of them; the same number in each is needed"
        )
    grid = np.array(devices).reshape(-1, fsdp)
    return Mesh(grid, (DATA, FSDP), axis_types=(AxisType.Auto, AxisType.Auto))


def find_mesh(fsdp: int, *, groups_per_batch: int, accumulation: int) -> Mesh | None:
    """The mesh of a run; None on a single device, where nothing is to be spread.

    Raises:
        InputError: the devices cannot be arranged so, or some would get fewer groups than others.
    """
    mesh = make_mesh(fsdp)
    if groups_per_batch % (accumulation * mesh.size):
        parts = f" in {accumulation} parts (training.accumulation)" if accumulation > 1 else ""
        raise InputError(
            f"data.groups_per_batch: got {groups_per_batch}{parts} on {mesh.size} devices; a "
            f"multiple of {accumulation * mesh.size} is needed, or fewer devices"
        )
    return mesh if mesh.size > 1 else None


@contextmanager
def on_host(mesh: Mesh | None) -> Iterator[None]:
    """Make arrays in the memory of the host: all of a state may be too much for one device."""
    if mesh is None:
        yield
        return
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        yield


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy of the whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh, *, axis: int = 0) -> NamedSharding:
    """Cut along `axis` over all devices."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, (DATA, FSDP)))


def state_shardings(state: PyTree, mesh: Mesh) -> PyTree:
    """A tree like `state` with the sharding of each array.

    Each is cut along its longest axis that can be cut; not along that of the layers of a stack,
    and not at all where it is small.
    """

    def choose(path: tuple[Any, ...], array: Array) -> NamedSharding:
        return NamedSharding(mesh, _cut(path, array, mesh.shape[FSDP]))

    return jax.tree_util.tree_map_with_path(choose, state)


def put_state(state: PyTree, shardings: PyTree) -> PyTree:
    """Lay a state out, as `state_shardings` says; every process has the whole of it."""

    def put(array: Array, sharding: NamedSharding) -> jax.Array:
        if jax.process_count() == 1:
            return jax.device_put(array, sharding)
        if jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
            data = put(jax.random.key_data(array), sharding)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(array))
        return _put_whole(np.asarray(array), sharding)

    return jax.tree.map(put, state, shardings)


def put_batch(
    batch: Mapping[str, np.ndarray], mesh: Mesh, *, accumulation: int = 1
) -> dict[str, jax.Array]:
    """Put this process's share of a batch on its devices; the result is the batch of all.

    Args:
        batch: arrays whose first axis, or the second one behind that of the parts, is groups or
            packed rows; a multiple of this process's devices.
    """
    axis = int(accumulation > 1)
    sharding = batch_sharding(mesh, axis=axis)
    arrays = {}
    for name, local in batch.items():
        shape = list(local.shape)
        shape[axis] *= jax.process_count()
        arrays[name] = jax.make_array_from_process_local_data(sharding, local, tuple(shape))
    return arrays


def put_whole(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Cut a batch that every process has over all devices, along the first axis."""
    return {name: _put_whole(array, batch_sharding(mesh)) for name, array in batch.items()}


def to_host(array: Array) -> np.ndarray:
    """The whole of an array, in every process; all of them must ask for it."""
    if isinstance(array, jax.Array) and not (
        array.is_fully_addressable or array.is_fully_replicated
    ):
        return np.asarray(multihost_utils.process_allgather(array, tiled=True))
    return np.asarray(array)


def _put_whole(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def _cut(path: tuple[Any, ...], array: Array, parts: int) -> PartitionSpec:
    """Along the longest axis that can be cut into `parts`, if the array is worth cutting."""
    if parts == 1 or array.size < _SMALLEST_CUT:
        return PartitionSpec()
    # Each step of the scan over layers takes one of the first axis: that must not be cut.
    first = int("stacked" in jax.tree_util.keystr(path))
    axes = [axis for axis in range(first, array.ndim) if array.shape[axis] % parts == 0]
    if not axes:
        return PartitionSpec()
    axis = max(axes, key=lambda axis: array.shape[axis])
    return PartitionSpec(*[None] * axis, FSDP)
