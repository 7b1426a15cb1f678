"""State-space models go on from a state as if they had read what it stands for."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrank.errors import InputError
from jaxrank.models.families import FAMILIES, get_family, state_arrays
from jaxrank.models.implementations import Implementations, choose_implementations
from jaxrank.models.lora import LoraConfig, LoraLinear, add_lora
from jaxrank.models.module import (
    RerankerConfig,
    RerankerModule,
    build_module,
    init_module,
    parameters,
)
from jaxrank.models.packing import Packing
from jaxrank.models.states import State

ROWS = 40  # of the token table
STATE_SPACE = pytest.mark.parametrize("family", ["mamba", "mamba2"])
# Where texts of 45 tokens are cut: an empty beginning, some shorter than the convolution sees, and
# both sides of the ends of the recurrences' chunks (16 and 32 tokens on a CPU).
TEXTS = np.random.default_rng(0).integers(1, ROWS, (8, 45))
CUTS = (0, 1, 2, 3, 16, 31, 33, 40)

Pieces = list[np.ndarray]
Batch = tuple[jax.Array, jax.Array]


@cache
def make(family: str, dtype: str = "float32") -> RerankerModule:
    """Weights as at a start, but for a head that tells vectors apart."""
    if dtype != "float32":
        exact = make(family)
        return build_module(exact.config, parameters(exact), dtype=jnp.dtype(dtype))
    preset = get_family(family).presets[f"{family}-tiny"]
    config = RerankerConfig(family, replace(preset, vocab_size=ROWS))
    module = init_module(config, seed=0, remat="projections")
    score = module.head.score.kernel
    score.set_value(jnp.sign(score.get_value()))
    return module


def abstract(config: RerankerConfig) -> RerankerModule:
    """A module of shapes alone."""
    return nnx.eval_shape(lambda: RerankerModule(config, rngs=nnx.Rngs(params=0)))


def pad(rows: Sequence[np.ndarray], length: int, *, seed: int = 0) -> Batch:
    """Right-padded rows and their mask; padding is made of tokens too, drawn by `seed`."""
    ids = np.random.default_rng(seed).integers(1, ROWS, (len(rows), length))
    for row, tokens in zip(ids, rows, strict=True):
        row[: len(tokens)] = tokens
    lengths = np.array([len(tokens) for tokens in rows])
    return jnp.asarray(ids), jnp.asarray(np.arange(length)[None] < lengths[:, None])


def cut(cuts: Sequence[int]) -> tuple[Pieces, Pieces]:
    rows = list(zip(TEXTS, cuts, strict=True))
    return [text[:at] for text, at in rows], [text[at:] for text, at in rows]


@cache
def _compiled(graphdef: Any, method: str) -> Any:
    def call(state: Any, *arguments: Any, mask: jax.Array, **keywords: Any) -> Any:
        return getattr(nnx.merge(graphdef, state), method)(*arguments, mask=mask, **keywords)

    return jax.jit(call, static_argnames="return_final_state")


def run(module: RerankerModule, method: str, *arguments: Any, **keywords: Any) -> Any:
    """Call a method of the module, compiled."""
    graphdef, state = nnx.split(module)
    *leading, (ids, mask) = arguments
    return _compiled(graphdef, method)(state, *leading, ids, mask=mask, **keywords)


def assert_same_state(state: State, want: State, tolerance: float = 1e-5) -> None:
    np.testing.assert_array_equal(state.lengths, want.lengths)
    assert state.arrays.keys() == want.arrays.keys()
    for name, array in want.arrays.items():
        np.testing.assert_allclose(state.arrays[name], array, rtol=0, atol=tolerance, err_msg=name)


@STATE_SPACE
def test_a_text_read_in_two_pieces_scores_as_the_whole(family: str):
    module, (beginnings, ends) = make(family), cut(CUTS)
    want = run(module, "__call__", pad(TEXTS, 48))
    assert np.std(want) > 1
    state = run(module, "read_prefix", pad(beginnings, 48))
    assert state.lengths.tolist() == list(CUTS)
    scores = run(module, "score_continuation", state, pad(ends, 45))
    np.testing.assert_allclose(scores, want, rtol=0, atol=1e-5)


def test_a_text_may_be_read_in_three_pieces_one_of_them_empty():
    module, (beginnings, rest) = make("mamba2"), cut(CUTS)
    middles = [tokens[:count] for tokens, count in zip(rest, [0, 1, 0, 2, 3, 7, 1, 4], strict=True)]
    ends = [tokens[len(middle) :] for tokens, middle in zip(rest, middles, strict=True)]
    state = run(module, "read_prefix", pad(beginnings, 48))
    _, state = run(module, "encode", pad(middles, 45), initial_state=state, return_final_state=True)
    scores = run(module, "score_continuation", state, pad(ends, 45))
    want = run(module, "__call__", pad(TEXTS, 48))
    np.testing.assert_allclose(scores, want, rtol=0, atol=1e-5)

    _, state = run(module, "encode", pad(ends, 45), initial_state=state, return_final_state=True)
    assert_same_state(state, run(module, "read_prefix", pad(TEXTS, 48)))


@STATE_SPACE
def test_a_state_depends_on_neither_padding_nor_neighbours(family: str):
    module, (beginnings, _) = make(family), cut(CUTS)
    state = run(module, "read_prefix", pad(beginnings, 48))
    others = [TEXTS[0][:20], TEXTS[1][:2], *beginnings[2:]]
    padded = run(module, "read_prefix", pad(others, 48, seed=1))
    for name, array in state.arrays.items():
        np.testing.assert_array_equal(padded.arrays[name][:, 2:], array[:, 2:])
        assert np.any(np.asarray(padded.arrays[name][:, 0] != array[:, 0]))
        assert not np.any(np.asarray(array[:, 0]))  # nothing was read


def test_more_padding_changes_a_state_by_rounding_only():
    module, (beginnings, _) = make("mamba2"), cut(CUTS)
    state = run(module, "read_prefix", pad(beginnings, 48))
    assert_same_state(run(module, "read_prefix", pad(beginnings, 64)), state, 1e-6)


# Mamba-2's without adapters are those of whole texts in the ordinary tests of shared states.
@pytest.mark.parametrize("family", ["mamba", pytest.param("mamba2", marks=pytest.mark.slow)])
def test_gradients_through_a_state_are_those_of_the_whole_text(family: str):
    module = nnx.clone(make(family))
    add_lora(module, LoraConfig(rank=2), seed=0)
    for _, layer in nnx.iter_modules(module):
        if isinstance(layer, LoraLinear):
            layer.lora_b.set_value(layer.lora_b.get_value() + 0.05)
    graphdef, state = nnx.split(module)
    beginnings, ends = (pad(rows, length) for rows, length in zip(cut(CUTS), (48, 45), strict=True))
    texts, weights = pad(TEXTS, 48), jnp.arange(1.0, 9.0)

    def whole(state: Any) -> jax.Array:
        return weights @ nnx.merge(graphdef, state)(texts[0], mask=texts[1])

    def in_pieces(state: Any) -> jax.Array:
        module = nnx.merge(graphdef, state)
        read = module.read_prefix(beginnings[0], mask=beginnings[1])
        return weights @ module.score_continuation(read, ends[0], mask=ends[1])

    def gradient(score: Callable[[Any], jax.Array]) -> Any:
        return nnx.to_flat_state(jax.jit(jax.grad(score))(state))

    want, got = gradient(whole), dict(gradient(in_pieces))
    assert any("lora_a" in path for path, _ in want)
    for path, gradient in want:
        array = np.asarray(gradient.get_value())
        assert np.any(array), path
        np.testing.assert_allclose(
            got[path].get_value(), array, rtol=0, atol=1e-5 * np.abs(array).max(), err_msg=path
        )


@STATE_SPACE
def test_in_bfloat16_a_state_costs_no_more_than_bfloat16_itself(family: str):
    (beginnings, ends), exact = cut(CUTS), run(make(family), "__call__", pad(TEXTS, 48))
    module = make(family, "bfloat16")
    want = run(module, "__call__", pad(TEXTS, 48))
    state = run(module, "read_prefix", pad(beginnings, 48))
    dtypes = {name: array.dtype for name, array in state.arrays.items()}
    assert dtypes == {"convolution": jnp.bfloat16, "recurrence": jnp.float32}
    scores = run(module, "score_continuation", state, pad(ends, 45))
    rounding = np.abs(want - exact).max()
    assert 0 < rounding < 1
    assert np.abs(scores - want).max() <= rounding


def test_a_state_of_bfloat16_scores_the_same_after_it_was_kept_in_float32():
    module, (beginnings, ends) = make("mamba", "bfloat16"), cut(CUTS)
    state = run(module, "read_prefix", pad(beginnings, 48))
    arrays = {name: array.astype(jnp.float32) for name, array in state.arrays.items()}
    kept = run(module, "score_continuation", state._replace(arrays=arrays), pad(ends, 45))
    scores = run(module, "score_continuation", state, pad(ends, 45))
    np.testing.assert_array_equal(kept, scores)


@STATE_SPACE
def test_a_state_may_come_in_another_precision(family: str):
    ids, mask = pad(TEXTS, 48)
    shapes = {
        array.name: (array.shape[0], 8, *array.shape[1:])
        for array in state_arrays(family, make(family).config.backbone)
    }
    for computed_in, came_in in (("bfloat16", "float32"), ("float32", "bfloat16")):
        arrays = {name: jnp.zeros(shape, came_in) for name, shape in shapes.items()}
        state = State(arrays, jnp.zeros(8, jnp.int32))
        module = make(family, computed_in)
        scores = jax.eval_shape(lambda ids: module.score_continuation(state, ids, mask=mask), ids)  # noqa: B023
        assert scores.dtype == jnp.float32


def test_the_kernels_take_and_leave_states():
    module = nnx.clone(make("mamba"))
    choose_implementations(module, Implementations(selective_scan="mosaic"))
    graphdef, state = nnx.split(module)
    (beginnings, read), (ends, real) = pad(TEXTS, 48), pad(TEXTS, 45)

    def score(state: Any) -> jax.Array:
        module = nnx.merge(graphdef, state)
        return module.score_continuation(module.read_prefix(beginnings, mask=read), ends, mask=real)

    exported = jax.export.export(jax.jit(score), platforms=["cuda"])(state)
    assert exported.mlir_module().count("custom_call @mosaic_gpu") == 2  # each in a loop of layers


def test_a_convolution_of_one_token_leaves_no_inputs():
    preset = replace(get_family("mamba").presets["mamba-tiny"], conv_width=1)
    ids, mask = pad(TEXTS, 48)

    def read_and_score(module: RerankerModule) -> Any:
        state = module.read_prefix(ids, mask=mask)
        return state.arrays["convolution"], module.score_continuation(state, ids, mask=mask)

    tail, scores = nnx.eval_shape(read_and_score, abstract(RerankerConfig("mamba", preset)))
    assert tail.shape == (2, 8, 0, 128)
    assert scores.shape == (8,)


@pytest.mark.parametrize(
    ("family", "preset"),
    [
        pytest.param(
            family, preset, marks=[] if preset.endswith(("tiny", "130m")) else pytest.mark.slow
        )
        for family in ("mamba", "mamba2")
        for preset in get_family(family).presets
    ],
)
def test_state_arrays_say_what_a_state_is_made_of(family: str, preset: str):
    ids, mask = pad(TEXTS[:3], 48)
    config = get_family(family).presets[preset]
    module = abstract(RerankerConfig(family, config))
    state = nnx.eval_shape(lambda module: module.read_prefix(ids, mask=mask), module)
    shapes = {name: array.shape for name, array in state.arrays.items()}
    layers = config.num_layers
    assert shapes == {
        array.name: (layers, 3, *array.shape[1:]) for array in state_arrays(family, config)
    }


def test_a_published_mamba_keeps_much_less_than_its_keys_and_values_would_be():
    sizes = {
        name: sum(
            np.prod(array.shape) for array in state_arrays(name, FAMILIES[name].presets[size])
        )
        for name, size in (("mamba", "mamba-130m"), ("mamba2", "mamba2-130m"))
    }
    assert sizes == {"mamba": 24 * 1536 * (16 + 3), "mamba2": 24 * (1536 * 128 + 1792 * 3)}


@pytest.mark.parametrize("family", ["bert", "electra", "modernbert", "bart", "t5"])
def test_families_that_read_both_texts_at_once_refuse_and_say_why(family: str):
    preset = get_family(family).presets[f"{family}-tiny"]
    said = f"family: '{family}' has no document states: .* depends on the query; .* mamba, mamba2"
    with pytest.raises(InputError, match=said):
        state_arrays(family, preset)


def test_a_module_without_states_refuses_to_read_a_beginning():
    module = abstract(RerankerConfig("bert", get_family("bert").presets["bert-tiny"]))
    ids, mask = pad(TEXTS, 48)
    with pytest.raises(InputError, match="family: 'bert' has no document states"):
        module.read_prefix(ids, mask=mask)
    with pytest.raises(InputError, match="family: 'bert' has no document states"):
        module.score_continuation(State({}, jnp.zeros(8, jnp.int32)), ids, mask=mask)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"recurrence": None}, r"\['convolution'\] came; \['convolution', 'recurrence'\] are"),
        ({"lengths": (7,)}, r"\(7,\) lengths came; \(8,\) are needed"),
        ({"recurrence": (2, 8, 16, 128)}, r"recurrence has .*; \(2, 8, 128, 16\) is needed"),
        ({"convolution": (3, 8, 3, 128)}, r"convolution has .*; \(2, 8, 3, 128\) is needed"),
    ],
)
def test_a_state_of_another_model_is_refused(change: dict, said: str):
    shapes = {"convolution": (2, 8, 3, 128), "recurrence": (2, 8, 128, 16), "lengths": (8,)}
    arrays = {name: jnp.zeros(shape) for name, shape in (shapes | change).items() if shape}
    lengths = arrays.pop("lengths").astype(jnp.int32)
    ids, mask = pad(TEXTS, 48)
    with pytest.raises(ValueError, match=said):
        make("mamba").encode(ids, mask=mask, initial_state=State(arrays, lengths))


def test_packed_rows_have_no_state():
    ids, mask = pad(TEXTS, 48)
    packing = Packing(jnp.ones_like(ids), ids, jnp.zeros((8, 1), int), jnp.zeros((8, 1), int))
    with pytest.raises(ValueError, match="packing: came with a state; a state needs a row for"):
        make("mamba").encode(ids, mask=mask, packing=packing, return_final_state=True)
