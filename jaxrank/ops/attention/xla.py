"""Attention in plain XLA, with all scores in memory: the specification of the others."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp

from jaxrank.ops.attention.visibility import Visibility, visible_keys
from jaxrank.ops.dropout import dropout


def attention_xla(
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
    """Attend; arguments and result as in `attention`, with every default resolved."""
    rules = visible_keys(visibility, jnp.arange(query.shape[1]), key.shape[1])
    query, key, value = heads_first(query, key, value)
    probabilities = attention_probabilities(query, key, rules, bias, scale).astype(value.dtype)
    probabilities = dropout(probabilities, dropout_rate, dropout_key)
    return jnp.swapaxes(jnp.einsum("bhls,bhsk->bhlk", probabilities, value), 1, 2)


def heads_first(
    query: jax.Array, key: jax.Array, value: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(B, L, H, K) and twice (B, S, kv, K) as (B, H, L, K) and twice (B, H, S, K).

    Heads in front make each head's matrices contiguous: on a CPU that pays for the copies.
    """
    query, key, value = (jnp.swapaxes(x, 1, 2) for x in (query, key, value))
    group = query.shape[1] // key.shape[1]
    if group > 1:
        key, value = map(partial(jnp.repeat, repeats=group, axis=1), (key, value))
    return query, key, value


def attention_probabilities(
    query: jax.Array,
    key: jax.Array,
    rules: Sequence[jax.Array],
    bias: jax.Array | None,
    scale: float,
) -> jax.Array:
    """Softmax in float32, (B, H, L, S), of the scores of (B, H, L, K) with (B, H, S, K)."""
    scores = scale * jnp.einsum("bhlk,bhsk->bhls", query, key, preferred_element_type=jnp.float32)
    if bias is not None:
        scores = scores + bias
    for rule in rules:
        # Not -inf: a query without any key would get NaN.
        scores = jnp.where(rule, scores, jnp.finfo(jnp.float32).min)
    return jax.nn.softmax(scores, axis=-1)
