"""Modules that the architectures share. Parameters are float32, results in `dtype`."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from jaxrank.models.linear import Linear
from jaxrank.models.packing import EVERYTHING, Visible
from jaxrank.ops.attention import attention
from jaxrank.ops.norm import layer_norm, rms_norm
from jaxrank.ops.rotary import Rotary, apply_rotary
from jaxrank.shapes import Array, Float, Int, Key

Fusion = Literal["parts", "heads"]


class Embedding(nnx.Module):
    """A table with one vector an id, drawn from a normal distribution at the start."""

    def __init__(
        self,
        num_embeddings: int,
        features: int,
        *,
        standard_deviation: float,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        table = jax.random.normal(rngs.params(), (num_embeddings, features), jnp.float32)
        self.embedding = nnx.Param(table * standard_deviation)
        self.dtype = dtype

    def __call__(self, ids: Int[Array, "..."]) -> Float[Array, "... D"]:
        """Look up vectors; an id beyond the table yields NaN, never another id's vector."""
        return jnp.take(self.embedding[...], ids, axis=0).astype(self.dtype)


class PositionEmbedding(Embedding):
    """A table with one vector a place in the text."""

    def __call__(self, positions: Int[Array, "*batch L"]) -> Float[Array, "_ L D"]:
        """Look up vectors, for each row its own (B, L) or for all the same (L,)."""
        vectors = super().__call__(positions)
        return vectors if positions.ndim == 2 else vectors[None]


class LayerNorm(nnx.Module):
    """Layer normalisation over the last axis; matches torch.nn.LayerNorm."""

    def __init__(
        self, features: int, *, epsilon: float, dtype: DTypeLike, use_bias: bool = True
    ) -> None:
        self.weight = nnx.Param(jnp.ones((features,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((features,), jnp.float32)) if use_bias else None
        self.epsilon = epsilon
        self.dtype = dtype

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """Normalise in float32, yield `dtype`."""
        weight = self.weight[...]
        bias = jnp.zeros_like(weight) if self.bias is None else self.bias[...]
        return layer_norm(x, weight, bias, epsilon=self.epsilon).astype(self.dtype)


class RMSNorm(nnx.Module):
    """Root-mean-square normalisation over the last axis; matches transformers' MambaRMSNorm."""

    def __init__(self, features: int, *, epsilon: float, dtype: DTypeLike) -> None:
        self.weight = nnx.Param(jnp.ones((features,), jnp.float32))
        self.epsilon = epsilon
        self.dtype = dtype

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """Normalise in float32, yield `dtype`."""
        return rms_norm(x, self.weight[...], epsilon=self.epsilon).astype(self.dtype)


class MultiHeadAttention(nnx.Module):
    """Projections to queries, keys and values, attention, and the projection back.

    Args:
        width: of the vectors that come in and go out.
        num_heads: heads of the queries.
        num_key_heads: heads of keys and values, each shared by several query heads; None: as many.
        head_size: width of a head; None: width / num_heads.
        use_bias: whether queries, keys and values have biases.
        use_output_bias: whether the projection back has one; None: as `use_bias`.
        fused: one projection for all three, `qkv`, whose outputs are ordered by part (all queries,
            all keys, all values) or by head (the three parts of each head side by side). None:
            three projections, `query`, `key` and `value`.
        scale: of the scores; None: 1 / sqrt(head_size).
        dropout_rate: on the attention probabilities, in training only.
        initial: draws the kernels.
    """

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        num_key_heads: int | None = None,
        head_size: int | None = None,
        use_bias: bool = True,
        use_output_bias: bool | None = None,
        fused: Fusion | None = None,
        scale: float | None = None,
        dropout_rate: float = 0.0,
        initial: Callable[..., Array],
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        linear = partial(Linear, kernel_init=initial, dtype=dtype, rngs=rngs)
        self.head_size = head_size or width // num_heads
        self.num_heads = num_heads
        inner = num_heads * self.head_size
        key_inner = (num_key_heads or num_heads) * self.head_size
        if fused:
            assert key_inner == inner, "a fused projection has as many key heads as query heads"
            self.qkv = linear(width, 3 * inner, use_bias=use_bias)
        else:
            self.query = linear(width, inner, use_bias=use_bias)
            self.key = linear(width, key_inner, use_bias=use_bias)
            self.value = linear(width, key_inner, use_bias=use_bias)
        has_bias = use_bias if use_output_bias is None else use_output_bias
        self.output = linear(inner, width, use_bias=has_bias)
        self.fused = fused
        self.scale = scale
        self.dropout_rate = dropout_rate
        self.attention_implementation = "auto"  # see choose_implementations

    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        *,
        source: Float[Array, "B S D"] | None = None,
        visible: Visible = EVERYTHING,
        bias: Float[Array, "_ H L S"] | None = None,
        is_causal: bool = False,
        window: int | Int[Array, ""] | None = None,
        rotary: Rotary | None = None,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "B L D"]:
        """Mix the vectors of `source` (of `hidden` itself if None) into those of `hidden`.

        `visible` says which vectors a vector sees; it, `bias`, `is_causal` and `window` are as in
        `jaxrank.ops.attention`. `rotary` turns queries and keys; `key` turns dropout on.
        """
        query, keys, values = self.project(hidden, hidden if source is None else source)
        if rotary is not None:
            query, keys = apply_rotary(query, rotary), apply_rotary(keys, rotary)
        return self.mix(
            query,
            keys,
            values,
            key,
            **visible._asdict(),
            bias=bias,
            is_causal=is_causal,
            window=window,
        )

    def mix(
        self,
        query: Float[Array, "B L H K"],
        keys: Float[Array, "B S kv K"],
        values: Float[Array, "B S kv K"],
        key: Key[Array, ""] | None,
        **options: Any,
    ) -> Float[Array, "B L D"]:
        """Attend, and project back; the options are those of `jaxrank.ops.attention`."""
        mixed_BLHK = attention(
            query,
            keys,
            values,
            **options,
            scale=self.scale,
            dropout_rate=self.dropout_rate,
            dropout_key=key,
            implementation=self.attention_implementation,
        )
        return self.output(mixed_BLHK.reshape(*query.shape[:2], -1))

    def project(
        self, hidden: Float[Array, "B L D"], source: Float[Array, "B S D"]
    ) -> tuple[Float[Array, "B L H K"], Float[Array, "B S kv K"], Float[Array, "B S kv K"]]:
        """Queries of `hidden`, and keys and values of `source`."""

        def heads(x: Array) -> Array:
            return x.reshape(*x.shape[:2], -1, self.head_size)

        if self.fused is None:
            return heads(self.query(hidden)), heads(self.key(source)), heads(self.value(source))
        assert source is hidden, "a fused projection attends to its own input"
        joined, count = self.qkv(hidden), self.num_heads
        if self.fused == "heads":
            by_head = joined.reshape(*hidden.shape[:2], count, 3, self.head_size)
            return by_head[:, :, :, 0], by_head[:, :, :, 1], by_head[:, :, :, 2]
        query, keys, values = jnp.split(joined, 3, axis=-1)
        return heads(query), heads(keys), heads(values)


class FeedForward(nnx.Module):
    """Up, an activation, and down, for each token on its own."""

    def __init__(
        self,
        width: int,
        inner: int,
        *,
        activation: str,
        use_bias: bool = True,
        initial: Callable[..., Array],
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        linear = partial(Linear, use_bias=use_bias, kernel_init=initial, dtype=dtype, rngs=rngs)
        self.up = linear(width, inner)
        self.down = linear(inner, width)
        self.activation = activation

    def __call__(
        self, hidden: Float[Array, "B L D"], *, dropout: Callable[[Array], Array] | None = None
    ) -> Float[Array, "B L D"]:
        """Transform each token; `dropout` is applied to the inner activations."""
        inner = ACTIVATIONS[self.activation](self.up(hidden))
        return self.down(inner if dropout is None else dropout(inner))


class GatedFeedForward(nnx.Module):
    """Down of (activation of gate) times up, without biases: GEGLU, SwiGLU (arXiv 2002.05202).

    Args:
        is_fused: one projection, `gate_and_up`, whose outputs are all gates, then all ups.
    """

    def __init__(
        self,
        width: int,
        inner: int,
        *,
        activation: str,
        is_fused: bool = False,
        initial: Callable[..., Array],
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        linear = partial(Linear, use_bias=False, kernel_init=initial, dtype=dtype, rngs=rngs)
        if is_fused:
            self.gate_and_up = linear(width, 2 * inner)
        else:
            self.gate = linear(width, inner)
            self.up = linear(width, inner)
        self.down = linear(inner, width)
        self.activation = activation
        self.is_fused = is_fused

    def __call__(
        self, hidden: Float[Array, "B L D"], *, dropout: Callable[[Array], Array] | None = None
    ) -> Float[Array, "B L D"]:
        """Transform each token; `dropout` is applied to the inner activations."""
        if self.is_fused:
            gate, up = jnp.split(self.gate_and_up(hidden), 2, axis=-1)
        else:
            gate, up = self.gate(hidden), self.up(hidden)
        inner = ACTIVATIONS[self.activation](gate) * up
        return self.down(inner if dropout is None else dropout(inner))


def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The exact Gaussian error linear unit, x * Phi(x); matches torch.nn.functional.gelu."""
    return x * (0.5 * (1.0 + jax.lax.erf(x * math.sqrt(0.5))))


ACTIVATIONS: Mapping[str, Callable[[Any], Any]] = {
    "gelu": gelu,
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
}
"""Name in our configurations -> function; `gelu_tanh` is transformers' `gelu_new`."""


def split_key(key: Key[Array, ""] | None, count: int) -> tuple[Key[Array, ""] | None, ...]:
    """One key for each of `count` uses, by fold_in; all None when there is no key."""
    return tuple(None if key is None else jax.random.fold_in(key, use) for use in range(count))
