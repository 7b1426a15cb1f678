"""A training state as a dict of named arrays, and back.

The names are paths, such as `optimizer_state/0/mu/head/kernel/value`, so what is on disk depends on
no class of Flax's or optax's.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxrank.errors import InputError
from jaxrank.shapes import Array
from jaxrank.training.step import TrainState

Description = dict[str, list[Any]]
"""Name -> [shape, dtype], as JSON has it."""


def state_arrays(state: TrainState) -> dict[str, Array]:
    """Everything that changes in a state, and its random key; not what is not trained."""
    leaves, _ = jax.tree.flatten_with_path(_saved(state))
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def with_arrays(state: TrainState, arrays: Mapping[str, Array]) -> TrainState:
    """`state` with the arrays that `state_arrays` gave; those that it has may be deleted."""
    structure = jax.tree.structure(_saved(state))
    rebuilt: TrainState = jax.tree.unflatten(
        structure, [arrays[name] for name in state_arrays(state)]
    )
    key = jax.random.wrap_key_data(arrays["key"], impl=jax.random.key_impl(state.key))
    return rebuilt._replace(key=key, frozen=state.frozen)


def describe_arrays(arrays: Mapping[str, Array]) -> Description:
    """Shape and dtype of every array."""
    return {name: [list(array.shape), str(array.dtype)] for name, array in arrays.items()}


def compare_arrays(there: Description, here: Description) -> None:
    """Raise InputError, with a reason alone, for the first array that is not as it was saved."""
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            found, needed = _word(there.get(name)), _word(here.get(name))
            raise InputError(f"{name} is {found} there and {needed} in this run")


def _saved(state: TrainState) -> TrainState:
    """The part of a state that a checkpoint holds, all of it arrays."""
    return state._replace(
        frozen=(),
        key=jax.random.key_data(state.key),
        skipped=jnp.asarray(state.skipped, jnp.int32),
    )


def _word(array: list[Any] | None) -> str:
    return "missing" if array is None else f"{array[1]}{array[0]}"
