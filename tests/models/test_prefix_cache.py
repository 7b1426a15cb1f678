"""Decoders go on from the keys and values of a prefix as if they had read all at once."""

import math
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrank.models.families import FAMILIES, state_arrays
from jaxrank.models.packing import Packing
from jaxrank.models.states import State

# Three texts in three pieces, each padded on the right; a piece may be empty.
PIECES = np.array([[5, 3, 1], [2, 4, 0], [6, 1, 3]])
WIDTHS = (8, 6, 4)
SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": sum(WIDTHS),
}
CONFIGS = {
    "opt": replace(FAMILIES["opt"].presets["opt-tiny"], **SIZES),
    "gpt_neox": replace(FAMILIES["gpt_neox"].presets["gpt-neox-tiny"], **SIZES),
    "llama": replace(FAMILIES["llama"].presets["llama-tiny"], **SIZES),  # 4 heads share 2 of keys
}
decoders = pytest.mark.parametrize("family", CONFIGS)


def make(family: str, *, dtype: Any = jnp.float32, **changes: Any) -> tuple[Any, Any]:
    """A backbone's graph and weights, so large that a token tells by much what stood before it."""
    config, backbone = replace(CONFIGS[family], **changes), FAMILIES[family].backbone
    graph, shapes = jax.eval_shape(
        lambda: nnx.split(backbone(config, dtype=dtype, rngs=nnx.Rngs(params=0)))
    )
    random = np.random.default_rng(0)
    return graph, jax.tree.map(
        lambda x: jnp.asarray(random.normal(1.0 if x.ndim < 3 else 0.0, 0.2, x.shape), x.dtype),
        shapes,
    )


def pieces_and_whole() -> tuple[list[dict[str, jax.Array]], dict[str, jax.Array]]:
    """The pieces, with any ids in their padding, and the texts at once."""
    random = np.random.default_rng(1)
    pieces = [
        {
            "input_ids": random.integers(0, 64, (3, width)),
            "mask": np.arange(width) < PIECES[:, number, None],
        }
        for number, width in enumerate(WIDTHS)
    ]
    width = PIECES.sum(axis=1).max()
    whole = {"input_ids": np.zeros((3, width), int), "mask": np.zeros((3, width), bool)}
    for row in range(3):
        ids = np.concatenate([piece["input_ids"][row, piece["mask"][row]] for piece in pieces])
        whole["input_ids"][row, : len(ids)] = ids
        whole["mask"][row, : len(ids)] = True
    return jax.tree.map(jnp.asarray, (pieces, whole))


(FIRST, SECOND, THIRD), WHOLE = pieces_and_whole()
REAL = np.asarray(SECOND["mask"])
IS_SECOND = np.zeros(WHOLE["mask"].shape, bool)
"""Where the second piece stands in the whole."""
for row, (start, length, _) in enumerate(PIECES):
    IS_SECOND[row, start : start + length] = True


def a_state(family: str = "llama") -> State:
    """Of the right shapes for the first piece, and nothing in it."""
    arrays = {
        array.name: jnp.zeros((array.shape[0], 3, WIDTHS[0], *array.shape[1:]))
        for array in state_arrays(family, CONFIGS[family])
    }
    return State(arrays, jnp.asarray(PIECES[:, 0]))


@cache
def outcome(family: str) -> SimpleNamespace:
    """What a family yields; compiled once."""
    graph, weights = make(family)
    is_read = np.asarray(FIRST["mask"])
    places = np.arange(WIDTHS[0])[None]
    # Which of the first piece's keys and values are other ones: none, padding, one place each.
    at_place = [(places == place) & is_read for place in range(6)]
    changes = np.stack([np.zeros_like(is_read), ~is_read, *at_place])

    def read(weights: Any) -> dict[str, Any]:
        backbone, state, hidden, states = nnx.merge(graph, weights), None, [], []
        for piece in (FIRST, SECOND, THIRD):
            vectors, state = backbone.encode(**piece, initial_state=state, return_final_state=True)
            hidden, states = [*hidden, vectors], [*states, state]

        def go_on(change: jax.Array) -> jax.Array:
            chosen = change[None, :, :, None, None]
            arrays = {n: jnp.where(chosen, 9.0, x) for n, x in states[0].arrays.items()}
            return backbone.encode(**SECOND, initial_state=states[0]._replace(arrays=arrays))

        other = dict(SECOND, input_ids=jnp.where(REAL, SECOND["input_ids"], 1))
        whole, whole_state = backbone.encode(**WHOLE, return_final_state=True)
        return {
            "hidden": hidden,
            "states": states,
            "whole": whole,
            "whole_state": whole_state,
            "changed": jax.lax.map(go_on, changes),
            "other_padding": backbone.encode(**other, initial_state=states[0]),
        }

    return SimpleNamespace(**jax.tree.map(np.asarray, jax.jit(read)(weights)))


@decoders
def test_a_text_in_pieces_yields_what_it_yields_at_once(family: str):
    found = outcome(family)
    for row, lengths in enumerate(PIECES):
        for number, end in enumerate(np.cumsum(lengths)):
            got = found.hidden[number][row, : lengths[number]]
            want = found.whole[row, end - lengths[number] : end]
            np.testing.assert_allclose(got, want, atol=1e-5)
            assert found.states[number].lengths[row] == end
            for name, array in found.states[number].arrays.items():
                want = found.whole_state.arrays[name][:, row, :end]
                np.testing.assert_allclose(array[:, row, :end], want, atol=1e-5, err_msg=name)
    assert found.whole_state.lengths.tolist() == PIECES.sum(axis=1).tolist()


@decoders
def test_a_token_that_was_read_changes_what_follows_and_padding_nothing(family: str):
    found = outcome(family)
    unchanged, other_padding, *other_tokens = found.changed
    np.testing.assert_array_equal(unchanged[REAL], other_padding[REAL])
    np.testing.assert_allclose(unchanged[REAL], found.hidden[1][REAL], atol=1e-5)
    np.testing.assert_allclose(unchanged[REAL], found.other_padding[REAL], atol=1e-5)
    for place, changed in enumerate(other_tokens):
        is_read = place < PIECES[:, 0]
        difference = np.abs(changed - unchanged).max(axis=2, initial=0, where=REAL[..., None])
        assert difference[is_read].max(axis=1).min() > 1e-2
        assert np.all(difference[~is_read] == 0)


def test_gradients_flow_through_keys_and_values():
    graph, weights = make("llama")
    cotangent = np.random.default_rng(2).standard_normal((*WHOLE["mask"].shape, 32))

    def at_once(weights: Any) -> jax.Array:
        hidden = nnx.merge(graph, weights).encode(**WHOLE)
        return jnp.sum(hidden[IS_SECOND] * cotangent[IS_SECOND])

    def in_pieces(weights: Any) -> jax.Array:
        backbone = nnx.merge(graph, weights)
        _, state = backbone.encode(**FIRST, return_final_state=True)
        hidden = backbone.encode(**SECOND, initial_state=state)
        return jnp.sum(hidden[REAL] * cotangent[IS_SECOND])

    got, want = jax.jit(lambda weights: [jax.grad(f)(weights) for f in (in_pieces, at_once)])(
        weights
    )
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(want))
    for (path, mine), theirs in zip(
        jax.tree.leaves_with_path(got), jax.tree.leaves(want), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, atol=1e-5 * scale, err_msg=str(path))


def test_a_state_of_another_precision_is_rounded_to_the_model_s():
    graph, weights = make("llama", dtype=jnp.bfloat16)
    state = outcome("llama").states[0]

    def go_on(weights: Any, state: State) -> Any:
        return nnx.merge(graph, weights).encode(
            **SECOND, initial_state=state, return_final_state=True
        )

    assert state.arrays["keys"].dtype == jnp.float32
    hidden, joined = jax.jit(go_on)(weights, state)
    assert {x.dtype for x in (hidden, *joined.arrays.values())} == {jnp.dtype(jnp.bfloat16)}
    want = outcome("llama").hidden[1][REAL]
    error = np.asarray(hidden, np.float32)[REAL] - want
    # Two layers of sums of which each result is rounded, 2^-8; a wrong key shows as 0.1 or more.
    assert np.linalg.norm(error) < 0.02 * np.linalg.norm(want)


def test_hidden_states_come_beside_a_state():
    graph, weights = make("opt")
    (hidden, states), state = jax.eval_shape(
        lambda: nnx.merge(graph, weights).encode(
            **FIRST, return_hidden_states=True, return_final_state=True
        )
    )
    assert [x.shape for x in states] == [hidden.shape] * 3
    assert isinstance(state, State)


@decoders
def test_both_pieces_with_their_padding_must_fit_into_the_positions(family: str):
    backbone = nnx.merge(*make(family, max_position_embeddings=13))
    with pytest.raises(ValueError, match=r"8 tokens came, and input_ids are 6 .* has 13 positions"):
        backbone.encode(**SECOND, initial_state=a_state(family))
    ids = jnp.zeros((1, 14), int)
    with pytest.raises(ValueError, match="14 long; this model has 13 positions"):
        backbone.encode(ids, mask=ids == 0, return_final_state=True)


def test_a_state_that_is_not_of_this_model_and_these_texts_is_refused():
    backbone, state = nnx.merge(*make("llama")), a_state()
    keys = state.arrays["keys"]
    for wrong, message in (
        (state._replace(arrays=state.arrays | {"keys": keys[:1]}), "state: keys has shape"),
        (state._replace(arrays=state.arrays | {"values": keys[:, :, :5]}), r"\['values'\]: shape"),
    ):
        with pytest.raises(ValueError, match=message):
            backbone.encode(**SECOND, initial_state=wrong)
    packing = Packing(*jnp.zeros((4, 3, 6), int))
    for options in ({"initial_state": state}, {"return_final_state": True}):
        with pytest.raises(ValueError, match=r"^packing: came with a state"):
            backbone.encode(**SECOND, packing=packing, **options)


@decoders
def test_state_arrays_say_what_a_state_is_made_of(family: str):
    found = outcome(family).states[0].arrays
    said = a_state(family).arrays
    assert {n: x.shape for n, x in said.items()} == {n: x.shape for n, x in found.items()}
    assert all(array.per_token for array in state_arrays(family, CONFIGS[family]))


@pytest.mark.parametrize(
    ("family", "preset", "expected"),
    [
        ("opt", "opt-125m", 36_864),
        ("gpt_neox", "pythia-160m", 36_864),
        ("llama", "llama-3.2-1b", 32_768),
    ],
)
def test_published_sizes_keep_so_many_bytes_a_token_in_bfloat16(family, preset, expected):
    arrays = state_arrays(family, FAMILIES[family].presets[preset])
    assert sum(2 * math.prod(array.shape) for array in arrays) == expected
