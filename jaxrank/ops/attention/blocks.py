"""Attention in plain XLA a block of queries at a time, for scores that would not fit in memory.

A row of the softmax is a query's own, so a block of queries with all keys is plain attention and
no sum is kept across blocks. The backward pass computes each block's scores again. What is in
memory grows with the length and not with its square.

Blocks are of queries and not of sequences, since sequences may be spread over devices.
"""

from functools import partial

import jax
import jax.numpy as jnp

from jaxrank.ops.attention.visibility import Visibility, visible_keys
from jaxrank.ops.attention.xla import attention_probabilities, heads_first
from jaxrank.ops.dropout import dropout

BLOCK_BYTES = 256 * 2**20
"""Most bytes of a block's scores, where that leaves FEWEST_QUERIES. A quarter of the least for
which "auto" takes blocks; at 32,768 tokens a batch and 16 heads it is 128 queries, which fill a
GPU's matrix units. Of a batch that is spread over devices all sequences count."""

FEWEST_QUERIES = 16
"""Queries of a block at least: with fewer, a step would do less for each reading of the keys."""


def attention_blocks(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    visibility: Visibility,
    bias: jax.Array | None,
    *,
    scale: float,
    dropout_rate: float,
    dropout_key: jax.Array | None,
) -> jax.Array:
    """Attend as `attention_xla` does, with its very dropout."""
    batch, length, num_heads, _ = query.shape
    num_keys, dtype = key.shape[1], value.dtype
    size = _queries_of_a_block(batch * num_heads * num_keys, length)
    count = -(-length // size)
    query, key, value = heads_first(query, key, value)
    # The gradients of keys and values are added up over the blocks: in float32.
    key, value = key.astype(jnp.float32), value.astype(jnp.float32)

    # Nothing is shared between the passes of a loop anyway, so none needs to be prevented.
    @partial(jax.checkpoint, prevent_cse=False)
    def attend(
        start: jax.Array, query: jax.Array, segment_ids: jax.Array | None, bias: jax.Array | None
    ) -> jax.Array:
        own = visibility._replace(segment_ids=segment_ids)
        rules = visible_keys(own, start + jnp.arange(size), num_keys)
        probabilities = attention_probabilities(query, key.astype(dtype), rules, bias, scale)
        positions = _positions(batch * num_heads, start, size, length, num_keys)
        probabilities = dropout(
            probabilities.astype(dtype),
            dropout_rate,
            dropout_key,
            positions=positions.reshape(probabilities.shape),
        )
        return jnp.einsum("bhls,bhsk->bhlk", probabilities, value.astype(dtype))

    blocks = (
        size * jnp.arange(count),
        _in_blocks(query, count, size, axis=2),
        _in_blocks(visibility.segment_ids, count, size, axis=1),
        _in_blocks(bias, count, size, axis=2),
    )
    mixed = jax.lax.map(lambda block: attend(*block), blocks)  # (count, B, H, size, K)
    by_length = jnp.moveaxis(mixed, (0, 3), (1, 2)).reshape(batch, count * size, num_heads, -1)
    return by_length[:, :length]


def _queries_of_a_block(scores_of_a_query: int, length: int) -> int:
    fitting = BLOCK_BYTES // (4 * scores_of_a_query)
    return min(length, max(fitting, FEWEST_QUERIES))


def _in_blocks(x: jax.Array | None, count: int, size: int, *, axis: int) -> jax.Array | None:
    """`count` blocks of `size` along a new first axis; the last one is filled up with zeros."""
    if x is None:
        return None
    missing = count * size - x.shape[axis]
    padded = jnp.pad(x, [(0, missing if i == axis else 0) for i in range(x.ndim)])
    split = padded.reshape(*x.shape[:axis], count, size, *x.shape[axis + 1 :])
    return jnp.moveaxis(split, axis, 0)


def _positions(rows: int, start: jax.Array, size: int, length: int, num_keys: int) -> jax.Array:
    """Where a block's scores stand among all scores, (rows, size, S), uint32 modulo 2^32.

    Those of queries that fill up the last block are another query's, which nobody sees.
    """
    row = jnp.arange(rows, dtype=jnp.uint32) * jnp.uint32(length * num_keys % 2**32)
    query = (start + jnp.arange(size)).astype(jnp.uint32) * jnp.uint32(num_keys)
    key = jnp.arange(num_keys, dtype=jnp.uint32)
    return row[:, None, None] + query[None, :, None] + key[None, None, :]
