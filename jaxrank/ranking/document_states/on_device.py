"""Documents' states held where they are computed with, for as many as its memory takes."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxrank.errors import InputError
from jaxrank.ranking.document_states.formats import StateDType
from jaxrank.ranking.document_states.states import DocumentStates
from jaxrank.shapes import Array, Int

_DOCUMENTS_AT_ONCE = 256  # bounds what the host holds while states are moved


class Held(NamedTuple):
    """States on a device, in the form in which they are stored; a pytree."""

    arrays: dict[str, Array]
    """name -> (layers, documents, ...); of arrays per token (layers, documents, tokens, ...)."""
    lengths: Int[Array, " documents"]
    """Tokens that were read of each."""


class DeviceStates:
    """A copy of all of `states` on a device, in the form in which they are stored.

    A query's candidates are then picked out on the device, and nothing but their places is moved.

    Args:
        states: what is copied; `states.select(ids)` copies a part.
        device: where to; None: JAX's default device.
    """

    def __init__(self, states: DocumentStates, *, device: jax.Device | None = None) -> None:
        self.identity = states.identity
        self.dtype: StateDType = states.dtype
        self.where = f"{states.where}, on the device"
        self.document_ids: Sequence[str] = tuple(states.document_ids)
        if not self.document_ids:
            raise InputError(f"{states.where}: holds no document; at least one is needed")
        self._places = {name: place for place, name in enumerate(self.document_ids)}
        per_token = any(spec.per_token for spec in self.identity.arrays)
        tokens = self.identity.document_budget if per_token else None
        held: Held | None = None
        for start in range(0, len(self.document_ids), _DOCUMENTS_AT_ONCE):
            names = self.document_ids[start : start + _DOCUMENTS_AT_ONCE]
            part = Held(*jax.device_put(tuple(states.gather(names, tokens=tokens)), device))
            if held is None:
                held = jax.device_put(_room(part, len(self.document_ids)), device)
            held = _write(held, part, np.int32(start))
        assert held is not None
        self.held: Held = held
        """The states of all documents, in the order of `document_ids`."""

    def __len__(self) -> int:
        return len(self.document_ids)

    @property
    def nbytes(self) -> int:
        """What they take of the device's memory."""
        return sum(array.nbytes for array in jax.tree.leaves(self.held))

    def places(self, document_ids: Sequence[str], *, rows: int) -> Int[np.ndarray, " rows"]:
        """Where documents stand in `held`; rows beyond them repeat the first document.

        Raises:
            InputError: a document is not among them.
        """
        places = np.zeros(rows, np.int32)
        for row, name in enumerate(document_ids):
            if name not in self._places:
                raise InputError(
                    f"{self.where}: no state of document {name!r}; it is to be encoded first, and "
                    "the states copied again"
                )
            places[row] = self._places[name]
        return places


def pick(held: Held, places: Int[Array, " rows"]) -> Held:
    """The states at some places; for use inside a compiled function."""
    arrays = {name: jnp.take(array, places, axis=1) for name, array in held.arrays.items()}
    return Held(arrays, jnp.take(held.lengths, places))


def _room(part: Held, documents: int) -> Held:
    arrays = {
        name: jnp.zeros((array.shape[0], documents, *array.shape[2:]), array.dtype)
        for name, array in part.arrays.items()
    }
    return Held(arrays, jnp.zeros(documents, part.lengths.dtype))


@partial(jax.jit, donate_argnums=0)
def _write(held: Held, part: Held, start: Int[Array, ""]) -> Held:
    """`held` with the documents of `part` from `start` on, in the same memory."""
    arrays = {
        name: lax.dynamic_update_slice_in_dim(array, part.arrays[name], start, axis=1)
        for name, array in held.arrays.items()
    }
    lengths = lax.dynamic_update_slice_in_dim(held.lengths, part.lengths, start, axis=0)
    return Held(arrays, lengths)
