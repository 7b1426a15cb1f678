"""When attention is cuDNN's, what keeps it from it, and that jax takes the calls; no GPU needed."""

import inspect
import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrank.ops import arguments
from jaxrank.ops.attention import api, attention
from jaxrank.ops.attention.cudnn import added_bytes, attention_cudnn, cudnn_obstacle
from jaxrank.ops.attention.visibility import Visibility
from tests.ops.hopper import pretend_hopper

BATCH, LENGTH, HEADS, WIDTH = 2, 8, 2, 64
LENGTHS = jnp.array([8, 5])
SEGMENTS = jnp.ones((BATCH, LENGTH), jnp.int32)
BIAS = jnp.zeros((1, HEADS, LENGTH, LENGTH))
PRIMITIVES = ("dot_product_attention_fwd_wrapper", "dot_product_attention_bwd_wrapper")


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_hopper(monkeypatch)


def arrays(
    length: int = LENGTH, keys: int = LENGTH, width: int = WIDTH, dtype: Any = jnp.bfloat16
) -> tuple[jax.Array, jax.Array]:
    return jnp.ones((BATCH, length, HEADS, width), dtype), jnp.ones(
        (BATCH, keys, HEADS, width), dtype
    )


WITHOUT_OBSTACLE = {
    "nothing": {},
    "lengths": {"key_lengths": LENGTHS},
    "other keys": {"keys": 12, "key_lengths": LENGTHS},
    "mask": {"mask": jnp.ones((BATCH, LENGTH), bool)},
    "segments": {"segment_ids": SEGMENTS, "key_segment_ids": SEGMENTS},
    "bias": {"bias": BIAS},
    "bias of each sequence": {"bias": jnp.zeros((BATCH, HEADS, LENGTH, LENGTH))},
    "bias and segments": {"bias": BIAS, "segment_ids": SEGMENTS, "key_segment_ids": SEGMENTS},
    "bias and lengths": {"bias": BIAS, "key_lengths": LENGTHS},
    "bias, causal": {"bias": BIAS, "is_causal": True, "key_lengths": LENGTHS},
    "causal": {"is_causal": True},
    "causal and lengths": {"is_causal": True, "key_lengths": LENGTHS},
    "causal window": {"is_causal": True, "window": 2},
    "causal window, lengths": {"is_causal": True, "window": 2, "key_lengths": LENGTHS},
    "causal window of 0": {"is_causal": True, "window": 0},
    "window": {"window": 2, "key_lengths": LENGTHS},
    "causal, further on": {"is_causal": True, "query_offset": 4, "keys": 12},
    "causal window, further on": {"is_causal": True, "window": 2, "query_offset": 4, "keys": 12},
    "window of a layer": {"window": jnp.asarray(2), "key_lengths": LENGTHS},
    "float16": {"dtype": jnp.float16, "bias": BIAS},
    "wide heads": {"width": 256},
}


@pytest.mark.parametrize("options", WITHOUT_OBSTACLE.values(), ids=WITHOUT_OBSTACLE)
def test_jax_takes_the_call_and_its_gradients_where_there_is_no_obstacle(hopper, options: dict):
    sizes = {n: options[n] for n in ("keys", "width", "dtype") if n in options}
    query, key = arrays(**sizes)
    assert cudnn_obstacle(query, key, 0.0) is None
    visibility = Visibility(**{n: options[n] for n in Visibility._fields if n in options})

    def total(query: jax.Array, key: jax.Array, bias: jax.Array | None) -> jax.Array:
        output = attention_cudnn(query, key, key, visibility, bias, scale=0.5)
        assert output.shape == query.shape
        return output.sum()

    differentiated = (0, 1) if options.get("bias") is None else (0, 1, 2)
    gradient = jax.grad(total, argnums=differentiated)
    text = str(jax.make_jaxpr(gradient)(query, key, options.get("bias")))
    assert all(primitive in text for primitive in PRIMITIVES)
    shapes = jax.eval_shape(gradient, query, key, options.get("bias"))
    assert [x.shape for x in shapes] == [
        x.shape for x in (query, key, options.get("bias")) if x is not None
    ]
    assert shapes[-1].dtype == (query.dtype if len(shapes) == 2 else jnp.float32)


@pytest.mark.parametrize(
    ("sizes", "dropout_rate", "message"),
    [
        ({}, 0.1, "it has no attention dropout; set the rate to 0 or take 'xla'"),
        ({"dtype": jnp.float32}, 0.0, "it needs float16 or bfloat16, not float32"),
        ({"width": 36}, 0.0, "heads are 36 wide; it needs a multiple of 8 up to 256"),
        ({"width": 264}, 0.0, "heads are 264 wide; it needs a multiple of 8 up to 256"),
        ({"length": 1}, 0.0, "it needs more than one query and one key"),
        ({"keys": 1}, 0.0, "it needs more than one query and one key"),
        ({"length": 7}, 0.0, "it needs even lengths, not 7 and 8"),
        ({"keys": 7}, 0.0, "it needs even lengths, not 8 and 7"),
    ],
)
def test_an_obstacle_is_named(hopper, sizes: dict, dropout_rate: float, message: str):
    assert cudnn_obstacle(*arrays(**sizes), dropout_rate) == message


def test_odd_lengths_are_an_obstacle_of_jax_whatever_its_message_says(hopper):
    query, key = arrays(length=7, keys=7)

    def total(query: jax.Array) -> jax.Array:
        return attention_cudnn(query, key, key, Visibility(), None, scale=1.0).sum()

    with pytest.raises(NotImplementedError, match="Unsupported sequence length"):
        jax.make_jaxpr(jax.grad(total))(query)


@pytest.mark.parametrize(
    ("capability", "width", "message"),
    [
        ("7.5", 64, "compute capability 8.0 or more"),
        ("8.6", 256, "heads are 256 wide; it needs a multiple of 8 up to 128"),
        ("10.0", 256, "heads are 256 wide; it needs a multiple of 8 up to 128"),
        ("gfx942", 64, "compute capability 8.0 or more"),
    ],
)
def test_other_gpus_have_their_own_limits(monkeypatch, capability: str, width: int, message: str):
    pretend_hopper(monkeypatch, capability)
    found = cudnn_obstacle(*arrays(width=width), 0.0)
    assert found is not None
    assert message in found


def test_padding_on_the_right_lays_out_nothing_and_segments_a_mask():
    query, key = arrays()
    cell = 2 * LENGTH * LENGTH
    masks = {
        "key_lengths": (Visibility(key_lengths=LENGTHS, is_causal=True), None, 0),
        "window": (Visibility(key_lengths=LENGTHS, window=2), None, cell),
        "mask": (Visibility(mask=jnp.ones((BATCH, LENGTH), bool)), None, BATCH * cell),
        "segments": (Visibility(None, None, SEGMENTS, SEGMENTS), None, BATCH * cell),
        "bias": (Visibility(key_lengths=LENGTHS), BIAS, HEADS * cell),
        "both": (Visibility(None, None, SEGMENTS, SEGMENTS), BIAS, BATCH * HEADS * cell),
        "further on": (Visibility(is_causal=True, query_offset=4), None, cell),
    }
    for name, (visibility, bias, expected) in masks.items():
        assert added_bytes(query, key, visibility, bias) == expected, name


def test_the_call_means_what_plain_attention_means(hopper, monkeypatch: pytest.MonkeyPatch):
    """jax's own plain implementation stands in for cuDNN, under the very arguments."""
    original = jax.nn.dot_product_attention
    monkeypatch.setattr(
        jax.nn,
        "dot_product_attention",
        lambda *arguments, **options: original(*arguments, **options | {"implementation": "xla"}),
    )
    keys = jax.random.split(jax.random.key(0), 4)
    query, key, value = (
        jax.random.normal(k, (BATCH, LENGTH, HEADS, WIDTH), jnp.bfloat16) for k in keys[:3]
    )
    bias = jax.random.normal(keys[3], (1, HEADS, LENGTH, LENGTH)).astype(jnp.bfloat16)
    segment_ids = jnp.array([[1, 1, 1, 2, 2, 2, 2, 0], [1, 1, 2, 2, 3, 3, 0, 0]])
    calls: list[dict[str, Any]] = [
        {"key_lengths": LENGTHS},
        {"key_lengths": LENGTHS, "is_causal": True, "bias": bias},
        {"segment_ids": segment_ids, "is_causal": True, "bias": bias},
        {"key_lengths": LENGTHS, "is_causal": True, "window": 2},
        {"key_lengths": LENGTHS, "window": jnp.asarray(4)},
        {"is_causal": True, "query_offset": 3},
        {"is_causal": True, "query_offset": 3, "window": 2},
        {"mask": jnp.arange(LENGTH)[None] % jnp.array([[2], [3]]) == 0},
    ]

    @jax.jit
    def run(query: jax.Array, key: jax.Array, value: jax.Array) -> list[tuple[jax.Array, ...]]:
        names = ("cudnn", "xla")
        return [
            tuple(attention(query, key, value, implementation=n, **options) for n in names)
            for options in calls
        ]

    for options, (got, want) in zip(calls, run(query, key, value), strict=True):
        # Two roundings of probabilities and results of size 1 to bfloat16, 2^-8 each.
        np.testing.assert_allclose(
            got.astype(jnp.float32), want.astype(jnp.float32), atol=2**-6, err_msg=str(options)
        )


@pytest.mark.parametrize(
    ("key_lengths", "expected"), [(jnp.array([0, 5]), [1, 5]), (None, [LENGTH, LENGTH])]
)
def test_cudnn_is_told_a_length_of_at_least_one_and_a_bias_in_the_queries_dtype(
    hopper, monkeypatch, key_lengths, expected
):
    told = []
    monkeypatch.setattr(
        jax.nn, "dot_product_attention", lambda query, *_, **options: told.append(options) or query
    )
    query, key = arrays()
    attention(query, key, key, key_lengths=key_lengths, bias=BIAS, implementation="cudnn")
    assert told[0]["bias"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(told[0]["key_value_seq_lengths"], expected)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"bias": BIAS, "key_lengths": LENGTHS}, "cudnn"),
        ({"dropout_rate": 0.1, "dropout_key": jax.random.key(0)}, "xla"),
    ],
)
def test_auto_takes_cudnn_where_it_can(hopper, monkeypatch, options: dict, expected: str):
    taken = []
    for name in ("xla", "blocks", "cudnn"):
        monkeypatch.setattr(
            api, f"attention_{name}", lambda q, *_, name=name, **__: taken.append(name) or q
        )
    attention(*arrays(), arrays()[1], **options)
    assert taken == [expected]


def test_a_bias_too_large_to_lay_out_goes_in_blocks(hopper, monkeypatch):
    monkeypatch.setattr(api, "SCORES_BYTES", 2 * HEADS * LENGTH * LENGTH)
    taken = []
    monkeypatch.setattr(api, "attention_blocks", lambda q, *_, **__: taken.append("blocks") or q)
    attention(*arrays(), arrays()[1], bias=BIAS)
    assert taken == ["blocks"]


def test_auto_says_why_it_is_not_cudnn(hopper, monkeypatch, caplog: pytest.LogCaptureFixture):
    arguments.log_choice.cache_clear()
    monkeypatch.setattr(api, "attention_xla", lambda query, *_, **__: query)
    query, key = arrays()
    with caplog.at_level(logging.INFO, logger="jaxrank"):
        for _ in range(2):
            attention(query, key, key, dropout_rate=0.1, dropout_key=jax.random.key(0))
    (message,) = [record.message for record in caplog.records]
    assert "attention: implementation 'auto' is 'xla' on gpu (not 'cudnn': it has no" in message


def test_explicit_cudnn_is_strict(hopper):
    query, key = arrays(dtype=jnp.float32)
    with pytest.raises(ValueError, match="'cudnn' came, but it needs float16 or bfloat16"):
        inspect.unwrap(attention)(query, key, key, implementation="cudnn")
