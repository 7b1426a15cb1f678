"""How states are kept: in float32, in bfloat16, or in eight bits with a scale.

    float32    as the model gave them
    bfloat16   half the bytes; relative error 2^-8 at most
    int8       a quarter of them: integers from -127 to 127, and a bfloat16 scale for the numbers
               along the last axis; the error is half a scale at most

What a family says eight bits are too few for is kept in bfloat16 in an int8 store.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Literal, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np

from jaxrank.errors import InputError
from jaxrank.models.states import StateArray
from jaxrank.shapes import Array

StateDType = Literal["float32", "bfloat16", "int8"]

SCALE = ".scale"
"""Behind an array's name: that of its scales."""

_LARGEST = 127
_BFLOAT16 = np.dtype(jnp.bfloat16)
_SMALLEST_NORMAL = np.finfo(np.float32).smallest_normal


class StoredArray(NamedTuple):
    """One array of a document as it is kept: a state's, or its scales."""

    name: str
    shape: tuple[int, ...]
    """Of one document, without the axis of tokens if there is one: (layers, ...)."""
    per_token: bool
    dtype: np.dtype

    def shape_at(self, length: int) -> tuple[int, ...]:
        """Of a document of `length` tokens."""
        layers, *rest = self.shape
        return (layers, length, *rest) if self.per_token else self.shape

    def bytes_at(self, length: int) -> int:
        """Of a document of `length` tokens."""
        return prod(self.shape_at(length)) * self.dtype.itemsize


def check_dtype(name: str) -> None:
    """Raise InputError unless states are kept in that type."""
    if name not in get_args(StateDType):
        raise InputError(f"dtype: got {name!r}; {', '.join(get_args(StateDType))} is needed")


def stored_arrays(specs: Sequence[StateArray], dtype: StateDType) -> tuple[StoredArray, ...]:
    """What is kept of a document, in the order in which it is written."""
    stored: list[StoredArray] = []
    for spec in specs:
        stored.append(StoredArray(spec.name, spec.shape, spec.per_token, _kept_in(spec, dtype)))
        if _has_scale(spec, dtype):
            stored.append(
                StoredArray(spec.name + SCALE, spec.shape[:-1], spec.per_token, _BFLOAT16)
            )
    return tuple(stored)


def stored_bytes(specs: Sequence[StateArray], dtype: StateDType, length: int) -> int:
    """Bytes of the states of one document of `length` tokens."""
    return sum(array.bytes_at(length) for array in stored_arrays(specs, dtype))


def to_stored(
    arrays: Mapping[str, np.ndarray], specs: Sequence[StateArray], dtype: StateDType
) -> dict[str, np.ndarray]:
    """States as they are kept.

    Args:
        arrays: name -> numbers of any float type, with any axes but the last.

    Returns:
        The same names, and the scales, one for the numbers along the last axis.
    """
    stored: dict[str, np.ndarray] = {}
    for spec in specs:
        array = np.asarray(arrays[spec.name])
        if _has_scale(spec, dtype):
            stored[spec.name], stored[spec.name + SCALE] = _quantise(array.astype(np.float32))
        else:
            stored[spec.name] = array.astype(_kept_in(spec, dtype))
    return stored


def from_stored(
    arrays: Mapping[str, Array], specs: Sequence[StateArray], dtype: StateDType
) -> dict[str, Array]:
    """States from what is kept of them; to be called inside a compiled function.

    Returns:
        name -> float32 where there is a scale, otherwise what the array is kept in.
    """
    states: dict[str, Array] = {}
    for spec in specs:
        array = arrays[spec.name]
        if _has_scale(spec, dtype):
            scale = arrays[spec.name + SCALE].astype(jnp.float32)
            array = array.astype(jnp.float32) * scale[..., None]
        states[spec.name] = array
    return states


def _quantise(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Integers, and the scales with which they are to be multiplied.

    Scales are rounded up to bfloat16, so that no number exceeds 127 of them. One that would be
    subnormal is zero, as accelerators take it to be, and so are its numbers.
    """
    exact = np.abs(array).max(axis=-1, initial=0.0) / np.float32(_LARGEST)
    scale = _round_up(np.where(exact < _SMALLEST_NORMAL, np.float32(0), exact))
    divisor = np.where(scale == 0, np.inf, scale.astype(np.float32)).astype(np.float32)
    return np.rint(array / divisor[..., None]).astype(np.int8), scale


def _round_up(array: np.ndarray) -> np.ndarray:
    """The smallest bfloat16 not below each number, which is not negative; NaN stays NaN."""
    # A bfloat16 is the upper half of a float32, and larger bits are a larger number.
    bits = (array.view(np.uint32).astype(np.uint64) + 0xFFFF) >> 16
    return bits.astype(np.uint16).view(_BFLOAT16)


def _has_scale(spec: StateArray, dtype: StateDType) -> bool:
    return dtype == "int8" and spec.quantised


def _kept_in(spec: StateArray, dtype: StateDType) -> np.dtype:
    if _has_scale(spec, dtype):
        return np.dtype(np.int8)
    return np.dtype(np.float32) if dtype == "float32" else _BFLOAT16
