"""What a causal model knows of the tokens it has read: enough to go on without reading them again.

A state-space model keeps a fixed amount whatever the number of tokens: of each layer the last
inputs of its convolution and the states of its recurrence. A transformer keeps keys and values of
every token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jaxrank.shapes import Array, Int


@dataclass(frozen=True)
class StateArray:
    """One array of a text's state, as a family keeps it."""

    name: str
    """Its key in `State.arrays`."""

    shape: tuple[int, ...]
    """Of one text, without the axis of tokens if there is one: (layers, ...)."""

    per_token: bool = False
    """Whether an axis of the text's tokens follows that of the layers."""

    quantised: bool = True
    """Whether eight bits will do, with one scale for the numbers along the last axis."""


class State(NamedTuple):
    """The states of B texts; a pytree."""

    arrays: dict[str, Array]
    """name -> (layers, B, ...); of arrays per token (layers, B, tokens, ...)."""

    lengths: Int[Array, " B"]
    """Tokens read of each text."""


def check_state(state: State, arrays: Sequence[StateArray], *, rows: int) -> None:
    """Raise ValueError, naming the array, unless `state` is of `rows` texts in these `arrays`."""
    names = {array.name for array in arrays}
    if state.arrays.keys() != names:
        raise ValueError(f"state: arrays {sorted(state.arrays)} came; {sorted(names)} are needed")
    if state.lengths.shape != (rows,):
        raise ValueError(f"state: {state.lengths.shape} lengths came; {(rows,)} are needed")
    for array in arrays:
        layers, *rest = array.shape
        shape = state.arrays[array.name].shape
        tokens = shape[2:3] if array.per_token else ()
        if shape != (layers, rows, *tokens, *rest):
            needed = (layers, rows, *(["tokens"] if array.per_token else []), *rest)
            raise ValueError(f"state: {array.name} has shape {shape}; {needed} is needed")
