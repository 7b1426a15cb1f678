"""Ahead-of-time compilation for the H200: the target's description and the call that uses it."""

import contextlib
import functools
import importlib.util
import inspect
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

# Before JAX's first look at its platforms: with the plugin there but no driver, it would stop.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
from jax.experimental import topologies

# What XLA knows of a GPU, as text of its protocol buffer GpuTargetConfigProto.
H200 = """
gpu_device_info {
  cuda_compute_capability { major: 9 }
  threads_per_block_limit: 1024
  threads_per_warp: 32
  threads_per_core_limit: 2048
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  clock_rate_ghz: 1.98
  memory_bandwidth: 4800000000000
  l2_cache_size: 62914560
  device_memory_size: 150000000000
}
platform_name: "CUDA"
device_description_str: "NVIDIA H200"
runtime_version { major: 13 minor: 0 patch: 0 }
dnn_version_info { major: 9 minor: 12 }
"""
# Older versions lower Mosaic kernels for export, but have no compiler for a device that is away.
OLDEST_JAX = (0, 11, 2)
# Choosing by trial needs the device. Without it XLA's own matrix products would be a guess, and
# take longer to compile than calls of cuBLAS, which it mostly chooses there.
OPTIONS = {"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False}
MEND = "`bash scripts/setup.sh kernels` makes a fitting .venv-kernels"


class UnfitEnvironmentError(RuntimeError):
    """Nothing can be compiled for the H200 here; the message says what is missing."""


def compile_for_h200(
    function: Callable[..., Any], arguments: dict | tuple, **compiler_options: Any
) -> jax.stages.Compiled:
    """`function` compiled to the H200's machine code.

    Arguments:
        function: any function of arrays; a jitted one keeps its donated and static arguments.
        arguments: keyword (dict) or positional (tuple) arguments, whose arrays may be
            `jax.ShapeDtypeStruct`s: values are never looked at.
        compiler_options: XLA's, by name, beside those of OPTIONS.

    Returns:
        the executable: `memory_analysis().temp_size_in_bytes`, `as_text()`.

    Raises:
        UnfitEnvironmentError: JAX is too old, or the plugin's wheels or `ptxas` are missing.
    """
    here = jax.sharding.SingleDeviceSharding(h200_device())
    placed = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), arguments
    )
    lower = getattr(function, "lower", None) or jax.jit(function).lower
    options = {**OPTIONS, **compiler_options}
    try:
        with lowering_for_h200():
            lowered = lower(**placed) if isinstance(placed, dict) else lower(*placed)
        return lowered.compile(compiler_options=options)
    except RuntimeError as error:
        if "No PTX compilation provider" not in str(error):
            raise
        raise UnfitEnvironmentError(
            "compiling for the H200 needs NVIDIA's assembler ptxas of CUDA 13 (the wheel "
            f"nvidia-cuda-nvcc brings it), which was not found; {MEND}"
        ) from error


@contextlib.contextmanager
def lowering_for_h200() -> Iterator[None]:
    """A context in which Pallas lowers for an H200 that is not there.

    It asks the mesh for the device's kind, whose class differs between versions of JAX.
    """
    names = inspect.signature(jax.sharding.AbstractDevice).parameters
    extra = {"platform": "gpu", "num_cores": None}
    device = jax.sharding.AbstractDevice(
        device_kind="NVIDIA H200", **{name: extra[name] for name in extra if name in names}
    )
    mesh = jax.sharding.AbstractMesh((), (), abstract_device=device)
    with jax.sharding.use_abstract_mesh(mesh):
        yield


@functools.cache
def h200_device() -> jax.Device:
    """The H200 as XLA's compiler sees it, without a driver."""
    require_compiler()
    topology = topologies.get_topology_desc("h200", "cuda", target_config=H200, topology="1x1x1")
    return topology.devices[0]


def require_compiler() -> None:
    """Raises UnfitEnvironmentError where JAX, or its lack of a plugin, rules the H200 out."""
    version = tuple(int(part) for part in re.findall(r"\d+", jax.__version__)[:3])
    if version < OLDEST_JAX:
        needed = ".".join(map(str, OLDEST_JAX))
        raise UnfitEnvironmentError(
            f"compiling for the H200 needs jax >= {needed}, this is {jax.__version__}; {MEND}"
        )
    for package in ("jax_cuda13_plugin", "jax_plugins.xla_cuda13"):
        if not _is_installed(package):
            raise UnfitEnvironmentError(
                "compiling for the H200 needs the wheels jax-cuda13-plugin and jax-cuda13-pjrt, "
                f"whose package {package} is missing here; {MEND}"
            )


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # the parent of a dotted name
        return False
