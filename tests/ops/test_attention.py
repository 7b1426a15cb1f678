"""`attention` against softmax attention in float64."""

import inspect
import itertools
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrank.ops.attention import attention, blocks
from jaxrank.ops.oracle import largest_error, oracle_gradients

# float32 roundings (6e-8) over sums of 8 products and 7 probabilities.
FLOAT32 = 2e-6
BATCH, QUERIES, KEYS, HEADS, WIDTH = 3, 7, 7, 2, 8


def make_arrays(key_heads: int = HEADS, heads: int = HEADS) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    sizes = {"query": (QUERIES, heads), "key": (KEYS, key_heads), "value": (KEYS, key_heads)}
    arrays = {
        name: random.standard_normal((BATCH, *size, WIDTH)).astype(np.float32)
        for name, size in sizes.items()
    }
    mask = np.ones((BATCH, KEYS), bool)
    mask[1, 4:] = False
    mask[2, 2:5] = False
    bias = random.standard_normal((1, heads, QUERIES, KEYS)).astype(np.float32)
    return arrays | {"mask": mask, "bias": bias}


def oracle(query, key, value, mask=None, bias=0.0, is_causal=False, scale=None, window=None):
    # Complex numbers and axes in front are the complex step's.
    query, key, value = (np.asarray(x, np.result_type(x, np.float64)) for x in (query, key, value))
    # Which of the keys' heads serves each of the queries'.
    served_by = np.arange(query.shape[-2]) * key.shape[-2] // query.shape[-2]
    key, value = key[..., served_by, :], value[..., served_by, :]
    scores = np.einsum("...blhk,...bshk->...bhls", query, key) * (scale or WIDTH**-0.5) + bias
    allowed = np.ones(scores.shape, bool)
    if mask is not None:
        allowed &= mask[:, None, None, :]
    if is_causal:
        allowed &= np.arange(KEYS)[None, :] <= np.arange(QUERIES)[:, None]
    if window is not None:
        for position, target in itertools.product(range(QUERIES), range(KEYS)):
            if not position - window <= target <= position + window:
                allowed[..., position, target] = False
    weights = np.where(allowed, np.exp(scores), 0.0)
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.einsum("...bhls,...bshk->...blhk", weights, value)


@pytest.fixture(params=["xla", "blocks"])
def attend(request, monkeypatch: pytest.MonkeyPatch) -> Callable[..., jax.Array]:
    """`attention` by one implementation; its blocks hold three queries, so the last one has one."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 0)
    monkeypatch.setattr(blocks, "FEWEST_QUERIES", 3)
    return partial(attention, implementation=request.param)


@pytest.mark.parametrize(
    ("with_mask", "with_bias", "is_causal"), list(itertools.product([False, True], repeat=3))
)
def test_attention_equals_the_oracle(attend, with_mask: bool, with_bias: bool, is_causal: bool):
    arrays = make_arrays()
    if not with_mask:
        del arrays["mask"]
    if not with_bias:
        del arrays["bias"]
    scale = 0.5 if with_bias else None
    got = attend(**jax.tree.map(jnp.asarray, arrays), is_causal=is_causal, scale=scale)
    want = oracle(**arrays, is_causal=is_causal, scale=scale)
    np.testing.assert_allclose(got, want, rtol=FLOAT32, atol=FLOAT32)


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"window": 3}], ids=str)
def test_every_gradient_equals_the_oracle(attend, options: dict):
    arrays = make_arrays(key_heads=1)
    mask = arrays.pop("mask")
    weights = np.random.default_rng(1).standard_normal((BATCH, QUERIES, HEADS, WIDTH))

    def total(arrays: dict) -> jax.Array:
        return jnp.sum(attend(**arrays, mask=jnp.asarray(mask), **options) * weights)

    got = jax.jit(jax.grad(total))(jax.tree.map(jnp.asarray, arrays))
    want = oracle_gradients(
        lambda **arrays: (oracle(**arrays, mask=mask, **options),), arrays, list(arrays), (weights,)
    )
    for name, gradient in want.items():
        # Sums of up to 3 rows x 7 queries x 16 channels of float32.
        assert largest_error(got[name], gradient) < 2e-6, name


@pytest.mark.parametrize(("heads", "key_heads"), [(6, 1), (6, 2), (6, 3)])
@pytest.mark.parametrize("is_causal", [False, True])
def test_groups_of_query_heads_share_a_key_head(
    attend, heads: int, key_heads: int, is_causal: bool
):
    arrays = make_arrays(key_heads, heads)
    got = attend(**jax.tree.map(jnp.asarray, arrays), is_causal=is_causal)
    want = oracle(**arrays, is_causal=is_causal)
    np.testing.assert_allclose(got, want, rtol=FLOAT32, atol=FLOAT32)


@pytest.mark.parametrize("is_array", [False, True])
@pytest.mark.parametrize("window", [0, 2, KEYS])
@pytest.mark.parametrize("is_causal", [False, True])
def test_a_window_hides_keys_further_away(attend, is_causal: bool, window: int, is_array: bool):
    arrays = make_arrays()
    del arrays["mask"]  # with window 0 a masked position would see nothing
    got = attend(
        **jax.tree.map(jnp.asarray, arrays),
        is_causal=is_causal,
        window=jnp.asarray(window) if is_array else window,
    )
    want = oracle(**arrays, is_causal=is_causal, window=window)
    np.testing.assert_allclose(got, want, rtol=FLOAT32, atol=FLOAT32)


def test_a_scan_may_give_each_layer_its_own_window(attend):
    arrays = jax.tree.map(jnp.asarray, make_arrays(1, 2))
    windows = jnp.array([1, KEYS])
    _, outputs = jax.lax.scan(
        lambda carry, window: (carry, attend(**arrays, window=window)), 0, windows
    )
    for output, window in zip(outputs, (1, KEYS), strict=True):
        want = attend(**arrays, window=window)
        np.testing.assert_allclose(output, want, rtol=FLOAT32, atol=FLOAT32)
    assert np.abs(outputs[0] - outputs[1]).max() > 0.1


@pytest.mark.parametrize("options", [{"is_causal": True}, {"window": 2}], ids=str)
def test_queries_that_stand_further_on_attend_as_if_all_had_come(attend, options: dict):
    arrays, offset = jax.tree.map(jnp.asarray, make_arrays(key_heads=1)), 3
    mask = arrays.pop("mask").at[:, KEYS - 1].set(True)  # one for the last query to see
    weights = jnp.asarray(
        np.random.default_rng(1).standard_normal((BATCH, QUERIES - offset, HEADS, WIDTH))
    )

    def last(arrays: dict) -> tuple[jax.Array, jax.Array]:
        own = {"query": arrays["query"][:, offset:], "bias": arrays["bias"][:, :, offset:]}
        output = attend(**arrays | own, mask=mask, query_offset=offset, **options)
        return jnp.sum(output * weights), output

    def whole(arrays: dict) -> tuple[jax.Array, jax.Array]:
        output = attend(**arrays, mask=mask, **options)[:, offset:]
        return jnp.sum(output * weights), output

    got_gradients, got = jax.jit(jax.grad(last, has_aux=True))(arrays)
    want_gradients, want = jax.jit(jax.grad(whole, has_aux=True))(arrays)
    np.testing.assert_allclose(got, want, rtol=FLOAT32, atol=FLOAT32)
    for name, want in want_gradients.items():
        # Sums of up to 3 rows x 7 queries x 8 channels of float32.
        np.testing.assert_allclose(got_gradients[name], want, rtol=2e-5, atol=2e-5, err_msg=name)


# In each row two texts of three tokens, and padding; as keys of other queries, two of two.
SEGMENTS = np.tile(np.array([1, 1, 1, 2, 2, 2, 0], np.int32), (BATCH, 1))
KEY_SEGMENTS = np.tile(np.array([1, 1, 2, 2, 0, 0, 0], np.int32), (BATCH, 1))


def apart(x: jax.Array, size: int) -> jax.Array:
    """The two texts of each row as rows of their own."""
    return x[:, : 2 * size].reshape(2 * len(x), size, *x.shape[2:])


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(
    ("options", "key_segment_ids"),
    [
        ({}, None),
        ({"is_causal": True}, None),
        ({"window": 1}, None),
        ({"window": 1, "is_causal": True}, None),
        ({}, KEY_SEGMENTS),
    ],
    ids=["all", "causal", "window", "causal window", "cross"],
)
def test_texts_that_share_a_row_attend_as_in_rows_of_their_own(
    attend, options: dict, key_segment_ids: np.ndarray | None, with_bias: bool
):
    arrays = jax.tree.map(jnp.asarray, make_arrays(key_heads=2, heads=6))
    del arrays["mask"]
    if not with_bias:
        del arrays["bias"]
    if key_segment_ids is not None:
        options = options | {"key_segment_ids": jnp.asarray(key_segment_ids)}
    num_keys = 3 if key_segment_ids is None else 2
    weights = jnp.asarray(np.random.default_rng(1).standard_normal((2 * BATCH, 3, 6, WIDTH)))

    def packed(arrays: dict) -> tuple[jax.Array, jax.Array]:
        output = attend(**arrays, segment_ids=jnp.asarray(SEGMENTS), **options)
        return jnp.sum(apart(output, 3) * weights), apart(output, 3)

    def alone(arrays: dict) -> tuple[jax.Array, jax.Array]:
        own = {name: apart(arrays[name], num_keys) for name in ("key", "value")}
        if with_bias:
            cells = [(slice(3), slice(num_keys)), (slice(3, 6), slice(num_keys, 2 * num_keys))]
            blocks = [arrays["bias"][:, :, queries, keys] for queries, keys in cells]
            own["bias"] = jnp.tile(jnp.concatenate(blocks), (BATCH, 1, 1, 1))
        rest = {name: value for name, value in options.items() if name != "key_segment_ids"}
        output = attend(apart(arrays["query"], 3), **own, **rest)
        return jnp.sum(output * weights), output

    got_gradients, got = jax.jit(jax.grad(packed, has_aux=True))(arrays)
    want_gradients, want = jax.jit(jax.grad(alone, has_aux=True))(arrays)
    np.testing.assert_allclose(got, want, rtol=FLOAT32, atol=FLOAT32)
    for name, want in want_gradients.items():
        # Sums of up to 3 rows x 7 queries x 8 channels of float32.
        np.testing.assert_allclose(got_gradients[name], want, rtol=2e-5, atol=2e-5, err_msg=name)


def test_a_mask_hides_keys_inside_a_text_too(attend):
    arrays = jax.tree.map(jnp.asarray, make_arrays())
    del arrays["bias"]
    mask = arrays.pop("mask")
    kept = np.flatnonzero(mask[2])
    got = attend(**arrays, mask=mask, segment_ids=jnp.ones((BATCH, KEYS), jnp.int32))
    own = {name: array[2:, kept] for name, array in arrays.items()} | {"query": arrays["query"][2:]}
    np.testing.assert_allclose(got[2:], attend(**own), rtol=FLOAT32, atol=FLOAT32)


def test_queries_without_any_key_of_their_text_have_finite_values_and_gradients(attend):
    arrays = jax.tree.map(jnp.asarray, make_arrays())
    ids = jnp.asarray(SEGMENTS)

    def total(query: jax.Array) -> jax.Array:
        keys = {"segment_ids": ids + 1, "key_segment_ids": jnp.zeros_like(ids)}
        return attend(**arrays | {"query": query}, **keys).sum()

    value, gradient = jax.jit(jax.value_and_grad(total))(arrays["query"])
    assert np.isfinite(value)
    assert np.all(np.isfinite(gradient))


def test_the_softmax_is_in_float32(attend):
    arrays = make_arrays()
    # Scores of about 100: in bfloat16 they would be off by 0.25, and the weights by 25%.
    arrays["query"] *= 30.0
    narrow = {name: jnp.asarray(arrays[name], jnp.bfloat16) for name in ("query", "key", "value")}
    want = oracle(**{name: np.asarray(x, np.float64) for name, x in narrow.items()})
    got = attend(**narrow)
    assert got.dtype == jnp.bfloat16
    # Probabilities and values round to bfloat16 (2^-9 each) once.
    np.testing.assert_allclose(np.asarray(got, np.float64), want, rtol=1e-2, atol=2e-2)


def test_a_sequence_without_keys_has_finite_values_and_gradients(attend):
    arrays = jax.tree.map(jnp.asarray, make_arrays())
    arrays["mask"] = arrays["mask"].at[0].set(False)

    def total(query: jax.Array) -> jax.Array:
        return attend(**arrays | {"query": query}, is_causal=True).sum()

    value, gradient = jax.jit(jax.value_and_grad(total))(arrays["query"])
    assert np.isfinite(value)
    assert np.all(np.isfinite(gradient))


def test_dropout_keeps_the_expectation_and_follows_its_key(attend):
    arrays = jax.tree.map(jnp.asarray, make_arrays())

    def run(key: jax.Array) -> jax.Array:
        return attend(**arrays, dropout_rate=0.4, dropout_key=key)

    keys = jax.random.split(jax.random.key(0), 2000)
    mean = jax.lax.map(run, keys, batch_size=200).mean(axis=0)
    # 2,000 draws with a standard deviation of about 1 leave 0.02; four of those.
    np.testing.assert_allclose(mean, attend(**arrays), atol=0.09)
    np.testing.assert_array_equal(run(keys[0]), run(keys[0]))
    assert not np.array_equal(run(keys[0]), run(keys[1]))


def test_a_rate_without_a_key_drops_nothing(attend):
    arrays = jax.tree.map(jnp.asarray, make_arrays())
    np.testing.assert_array_equal(attend(**arrays, dropout_rate=0.4), attend(**arrays))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"implementation": "cudnn"}, "'cudnn' came, but it needs an NVIDIA GPU"),
        (
            {"implementation": "cudnn", "dropout_rate": 0.1, "dropout_key": jax.random.key(0)},
            "'cudnn' came, but it has no attention dropout",
        ),
        ({"implementation": "flash"}, "'flash' came; one of .*'auto', 'xla', 'blocks', 'cudnn'"),
        ({"mask": jnp.zeros((3, 6), bool)}, "^mask: shape"),
        ({"mask": jnp.zeros((3, 7))}, "^mask: dtype float32"),
        ({"key_lengths": jnp.zeros((4,), jnp.int32)}, "^key_lengths: shape"),
        ({"key_lengths": jnp.zeros((3,))}, "^key_lengths: dtype float32"),
        ({"segment_ids": jnp.zeros((3, 6), jnp.int32)}, "^segment_ids: shape"),
        ({"segment_ids": jnp.zeros((3, 7), bool)}, "^segment_ids: dtype bool"),
        ({"key_segment_ids": jnp.zeros((3, 7), jnp.int32)}, "^key_segment_ids: came without"),
        ({"value": jnp.zeros((3, 6, 2, 8))}, "^value: shape"),
        ({"key": jnp.zeros((3, 7, 2, 8), jnp.bfloat16)}, "^key: dtype bfloat16"),
        ({"bias": jnp.zeros((2, 2, 7, 7))}, "^bias: shape"),
        ({"query": jnp.zeros((3, 7, 8))}, "^query: shape"),
        (
            {"key": jnp.zeros((3, 7, 3, 8)), "value": jnp.zeros((3, 7, 3, 8))},
            "^key: 3 heads came; a divisor of the query's 2 is needed",
        ),
        ({"window": -1}, "^window: -1 came"),
        ({"query_offset": -1}, "^query_offset: -1 came"),
    ],
)
def test_wrong_arguments_are_named(options: dict, message: str):
    # The shape checker that tests switch on would speak first: call the function beneath it.
    function = inspect.unwrap(attention)
    with pytest.raises(ValueError, match=message):
        function(**jax.tree.map(jnp.asarray, make_arrays()) | options)
