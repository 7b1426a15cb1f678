"""Checks that the operations make of their arguments, and the choice of an implementation."""

import functools
import logging
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp

logger = logging.getLogger(__name__)


def check_array(
    name: str, array: jax.Array | None, shape: Sequence[int], dtype: type = jnp.floating
) -> None:
    """Raise ValueError, naming the argument, unless `array` is None or has this shape and dtype.

    `dtype` is a dtype, or an abstract one such as `jnp.floating`.
    """
    if array is None:
        return
    if tuple(array.shape) != tuple(shape):
        raise ValueError(f"{name}: shape {tuple(array.shape)} came; {tuple(shape)} is needed")
    if not jnp.issubdtype(array.dtype, dtype):
        raise ValueError(f"{name}: dtype {array.dtype} came; {dtype.__name__} is needed")


def check_rank(name: str, array: jax.Array, letters: str) -> None:
    """Raise ValueError unless `array` has one axis per letter ("B L D") and no empty axis."""
    if array.ndim != len(letters.split()) or 0 in array.shape:
        raise ValueError(
            f"{name}: shape {tuple(array.shape)} came; axes {letters}, none empty, are needed"
        )


def check_implementation(operation: str, name: str, known: Iterable[str]) -> None:
    """Raise ValueError, listing the known names, unless `name` is one of them or "auto"."""
    names = ["auto", *known]
    if name not in names:
        raise ValueError(f"{operation}: implementation {name!r} came; one of {names} is needed")


@functools.cache
def log_choice(operation: str, name: str, reason: str | None = None) -> None:
    """Log, once in the life of the process, which implementation "auto" stands for, and why."""
    because = f" ({reason})" if reason else ""
    logger.info(
        "%s: implementation 'auto' is %r on %s%s", operation, name, jax.default_backend(), because
    )
