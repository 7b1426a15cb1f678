"""A transformer's state: keys and values of the tokens that were read, of every layer.

Letters as in `jaxrank.shapes`; here S is the tokens read before, right-padded, and L those that go
on. Keys are kept turned (`apply_rotary`), so they need not know where they stood.
"""

from typing import NamedTuple

import jax.numpy as jnp

from jaxrank.models.states import State, StateArray, check_state
from jaxrank.ops.arguments import check_array
from jaxrank.shapes import Array, Bool, Float, Int


class KeysAndValues(NamedTuple):
    """As a layer's attention takes them, (B, S, kv, K) each; of a stack with a layer axis first."""

    keys: Array
    values: Array


def key_value_arrays(num_layers: int, key_heads: int, head_size: int) -> tuple[StateArray, ...]:
    """What the state of a text is made of in such a decoder."""
    shape = (num_layers, key_heads, head_size)
    return tuple(StateArray(name, shape, per_token=True) for name in KeysAndValues._fields)


def check_prefix(
    state: State,
    arrays: tuple[StateArray, ...],
    input_ids: Int[Array, "B L"],
    longest: int | None,
) -> None:
    """Raise ValueError unless as many texts may go on from `state` with `input_ids`.

    Shapes ensure that no text gets longer than the model has positions, so padding counts: how many
    tokens are real is not known at compilation.

    Args:
        arrays: what a state of this model is made of.
        longest: positions of the model; None: any number.
    """
    batch, length = input_ids.shape
    check_state(state, arrays, rows=batch)
    keys, values = KeysAndValues(**state.arrays)
    check_array("initial_state.arrays['values']", values, keys.shape)
    tokens = keys.shape[2]
    if longest is not None and tokens + length > longest:
        raise ValueError(
            f"initial_state: {tokens} tokens came, and input_ids are {length} long; this model has "
            f"{longest} positions, and both with their padding must fit into them"
        )


def tokens_to_see(state: State, length: int) -> Bool[Array, "B _"]:
    """Of the S tokens read before those that are real, and all the `length` new ones behind them.

    A new token's padding stands after it, where it does not look.
    """
    read_BS = jnp.arange(state.arrays["keys"].shape[2])[None, :] < state.lengths[:, None]
    return jnp.concatenate([read_BS, jnp.ones((len(read_BS), length), bool)], axis=1)


def joined_state(initial: State | None, own: KeysAndValues, mask: Bool[Array, "B L"]) -> State:
    """The state after the last real token of each text that went on from `initial`.

    Args:
        own: of the new tokens, (layers, B, L, kv, K).
        mask: which of those are real; padding stands on the right.

    Returns:
        Arrays of S + L tokens, the real ones first. What stands behind them is finite.
    """
    lengths = jnp.sum(mask, axis=1, dtype=jnp.int32)
    if initial is None:
        return State(own._asdict(), lengths)
    # A stable sort: the padding between the two moves to the end, all else stays in its order.
    order = jnp.argsort(~tokens_to_see(initial, mask.shape[1]), axis=1, stable=True)

    def join(
        before: Float[Array, "layers B S kv K"], new: Float[Array, "layers B L kv K"]
    ) -> Array:
        both = jnp.concatenate([before.astype(new.dtype), new], axis=2)
        return jnp.take_along_axis(both, order[None, :, :, None, None], axis=2)

    arrays = {name: join(initial.arrays[name], new) for name, new in own._asdict().items()}
    return State(arrays, initial.lengths + lengths)
