"""Refuses, in one line, to lower the kernels for anything but an NVIDIA GPU.

What a function will run on is known when it is lowered and not before: a machine without a GPU
may well trace it, export it or compile it for a machine with one. So the check is an operation of
its own, which does nothing on CUDA and has no lowering elsewhere.
"""

from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import mlir

_for_cuda_p = Primitive("selective_scan_mosaic_for_cuda")


def require_cuda(x: jax.Array) -> jax.Array:
    """X itself.

    Raises:
        ValueError: when lowered for another platform than CUDA.
    """
    return jax.jit(_for_cuda_p.bind)(x)


def _refuse(ctx: Any, x: Any) -> Any:
    platforms = ", ".join(ctx.module_context.platforms)
    raise ValueError(
        f"selective_scan: implementation 'mosaic': platform {platforms} came; an NVIDIA GPU of "
        "the Hopper generation or newer is needed; for another platform than the default "
        "backend's name 'scan' or 'associative', since 'auto' looks at the default backend"
    )


_for_cuda_p.def_abstract_eval(lambda x: x)
mlir.register_lowering(_for_cuda_p, _refuse)
mlir.register_lowering(_for_cuda_p, lambda ctx, x: [x], platform="cuda")
