"""Attention in blocks: what it shares with plain attention, and the memory that it saves."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrank.ops.attention import api, attention, blocks


@pytest.fixture
def five_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of five queries."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 0)
    monkeypatch.setattr(blocks, "FEWEST_QUERIES", 5)


def draw(*shape: int, seed: int = 0) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def test_dropout_drops_what_plain_attention_drops(five_queries):
    batch, length, heads, keys = 2, 12, 3, 8
    # All scores alike and each key its own unit vector: the output is the probabilities.
    value = jnp.broadcast_to(jnp.eye(keys)[None, :, None], (batch, keys, heads, keys))
    query, key = jnp.zeros((batch, length, heads, keys)), jnp.zeros_like(value)

    def kept(implementation: str) -> np.ndarray:
        options = {"dropout_rate": 0.3, "dropout_key": jax.random.key(4)}
        return np.asarray(attention(query, key, value, implementation=implementation, **options))

    np.testing.assert_array_equal(kept("blocks") == 0, kept("xla") == 0)
    np.testing.assert_array_equal(kept("blocks"), kept("xla"))
    assert 0.2 < np.mean(kept("blocks") == 0) < 0.4


def test_dropout_has_the_gradients_of_plain_attention(five_queries):
    arrays = {"query": draw(2, 12, 2, 4), "key": draw(2, 8, 2, 4, seed=1)}
    arrays |= {"value": draw(2, 8, 2, 4, seed=2), "bias": draw(2, 2, 12, 8, seed=3)}

    def gradients(implementation: str) -> dict[str, jax.Array]:
        options = {"dropout_rate": 0.3, "dropout_key": jax.random.key(4)}

        def total(arrays: dict) -> jax.Array:
            return (attention(**arrays, implementation=implementation, **options) ** 2).sum()

        return jax.jit(jax.grad(total))(arrays)

    got, want = gradients("blocks"), gradients("xla")
    for name in arrays:
        np.testing.assert_allclose(got[name], want[name], rtol=2e-5, atol=2e-5, err_msg=name)


def test_gradients_of_bfloat16_keys_are_added_up_in_float32(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 0)
    monkeypatch.setattr(blocks, "FEWEST_QUERIES", 1)
    # With one key its value's gradient is the number of queries: bfloat16 counts up to 256.
    query, key = (jnp.zeros((1, count, 1, 8), jnp.bfloat16) for count in (1000, 1))
    gradient = jax.grad(lambda value: attention(query, key, value, implementation="blocks").sum())
    np.testing.assert_array_equal(gradient(key), np.full((1, 1, 1, 8), 1000.0))


def temporaries(implementation: str, length: int) -> int:
    """Bytes beside arguments and results of a forward and a backward pass, 2 heads of 16."""
    shape = jax.ShapeDtypeStruct((1, length, 2, 16), jnp.float32)

    def total(*arrays: jax.Array) -> jax.Array:
        options = {"dropout_rate": 0.1, "dropout_key": jax.random.key(0)}
        return attention(*arrays, implementation=implementation, **options).sum()

    compiled = jax.jit(jax.grad(total, argnums=(0, 1, 2))).lower(shape, shape, shape).compile()
    analysis = compiled.memory_analysis()
    assert analysis is not None
    return analysis.temp_size_in_bytes


def test_memory_grows_with_the_length_and_not_with_its_square(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 2**19)
    assert temporaries("xla", 2048) > 4 * temporaries("xla", 1024) * 0.9
    # A few arrays as large as a block's scores, and a few as large as the queries.
    assert temporaries("blocks", 2048) < 6 * 2**19 + 4 * (4 * 2048 * 2 * 16)
    assert temporaries("blocks", 2048) < 1.25 * temporaries("blocks", 1024)


@pytest.mark.parametrize(
    ("scores", "expected"), [(api.SCORES_BYTES - 4, "xla"), (api.SCORES_BYTES, "blocks")]
)
def test_auto_takes_blocks_for_scores_that_would_not_fit(
    scores: int, expected: str, monkeypatch: pytest.MonkeyPatch
):
    taken = []
    for name in ("xla", "blocks"):
        monkeypatch.setattr(api, f"attention_{name}", recorder(taken, name))
    query, key = (
        jax.ShapeDtypeStruct((1, tokens, 1, 8), jnp.float32) for tokens in (scores // 4, 1)
    )
    jax.eval_shape(attention, query, key, key)
    assert taken == [expected]


def recorder(taken: list[str], name: str) -> Callable[..., jax.Array]:
    def record(query: jax.Array, *arguments: object, **options: object) -> jax.Array:
        taken.append(name)
        return query

    return record
