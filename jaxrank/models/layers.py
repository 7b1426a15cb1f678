"""Small modules that the architectures share. Parameters are float32, results in `dtype`."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from jaxrank.ops.norm import layer_norm, rms_norm
from jaxrank.shapes import Array, Float, Int, Key


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


class LayerNorm(nnx.Module):
    """Layer normalisation over the last axis; matches torch.nn.LayerNorm."""

    def __init__(self, features: int, *, epsilon: float, dtype: DTypeLike) -> None:
        self.weight = nnx.Param(jnp.ones((features,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((features,), jnp.float32))
        self.epsilon = epsilon
        self.dtype = dtype

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """Normalise in float32, yield `dtype`."""
        normed = layer_norm(x, self.weight[...], self.bias[...], epsilon=self.epsilon)
        return normed.astype(self.dtype)


class RMSNorm(nnx.Module):
    """Root-mean-square normalisation over the last axis; matches transformers' MambaRMSNorm."""

    def __init__(self, features: int, *, epsilon: float, dtype: DTypeLike) -> None:
        self.weight = nnx.Param(jnp.ones((features,), jnp.float32))
        self.epsilon = epsilon
        self.dtype = dtype

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """Normalise in float32, yield `dtype`."""
        return rms_norm(x, self.weight[...], epsilon=self.epsilon).astype(self.dtype)


def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The exact Gaussian error linear unit, x * Phi(x); matches torch.nn.functional.gelu."""
    return x * (0.5 * (1.0 + jax.lax.erf(x * math.sqrt(0.5))))


def split_key(key: Key[Array, ""] | None, count: int) -> tuple[Key[Array, ""] | None, ...]:
    """One key for each of `count` uses, by fold_in; all None when there is no key."""
    return tuple(None if key is None else jax.random.fold_in(key, use) for use in range(count))
