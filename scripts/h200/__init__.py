"""Compiles for the H200 on a machine without one, and reads what its compiler says.

Needs JAX 0.11.2 or newer with its CUDA 13 plugin and NVIDIA's assembler, but neither a GPU nor a
driver: `bash scripts/setup.sh kernels` makes `.venv-kernels` with them.
"""

from scripts.h200.compilation import UnfitEnvironmentError, compile_for_h200, require_compiler
from scripts.h200.resources import KernelResources, kernel_resources

__all__ = [
    "KernelResources",
    "UnfitEnvironmentError",
    "compile_for_h200",
    "kernel_resources",
    "require_compiler",
]
