"""Score heads: from a text's hidden vectors to one number, in float32.

A head is called as `head(hidden, mask=..., key=...)` and takes the vector that it needs itself.
"""

from typing import Literal

import jax
from flax import nnx
from jax import numpy as jnp

from jaxrank.models.backbone import BackboneConfig
from jaxrank.models.layers import ACTIVATIONS, split_key
from jaxrank.models.packing import Packing
from jaxrank.ops.dropout import dropout
from jaxrank.shapes import Array, Bool, Float, Float32, Key

HeadPooling = Literal["first", "last", "mean"]

SCORE_STANDARD_DEVIATION = 0.02  # as transformers starts the score layer of BERT


def pool(
    hidden: Float[Array, "B L D"], mask: Bool[Array, "B S"], pooling: HeadPooling
) -> Float32[Array, "B D"]:
    """One vector a text: its first token's, its last real token's, or the mean of the real ones'.

    Texts are padded on the right. S is L, but for the first vector, which needs no mask: a decoder
    may have yielded that one alone.
    """
    if pooling == "first":
        return hidden[:, 0].astype(jnp.float32)
    if pooling == "last":
        last_B = mask.shape[1] - 1 - jnp.argmax(mask[:, ::-1], axis=1)
        pooled = jnp.take_along_axis(hidden, last_B[:, None, None], axis=1)[:, 0]
        return pooled.astype(jnp.float32)
    total = jnp.sum(jnp.where(mask[:, :, None], hidden, 0), axis=1, dtype=jnp.float32)
    return total / jnp.maximum(jnp.sum(mask, axis=1), 1)[:, None]


def pool_texts(
    hidden: Float[Array, "B L D"], packing: Packing, pooling: HeadPooling
) -> Float32[Array, "B T D"]:
    """As `pool`, one vector for each of the T texts of a row; any finite one where there is none.

    Each row by itself, since rows may lie on several devices.
    """
    if pooling != "mean":
        places_BT = packing.first if pooling == "first" else packing.last
        return jnp.take_along_axis(hidden, places_BT[:, :, None], axis=1).astype(jnp.float32)
    texts_T = 1 + jnp.arange(packing.first.shape[1])
    is_own_BTL = packing.segment_ids[:, None, :] == texts_T[None, :, None]
    total_BTD = jnp.einsum(
        "btl,bld->btd", is_own_BTL.astype(hidden.dtype), hidden, preferred_element_type=jnp.float32
    )
    return total_BTD / jnp.maximum(jnp.sum(is_own_BTL, axis=2), 1)[:, :, None]


class LinearHead(nnx.Module):
    """Dropout and one linear layer: with a bias the head of both papers' rerankers.

    Without bias, at the last token and with a dropout rate of 0, that of transformers' classifiers
    on decoders (`causal.classification_head`).
    """

    def __init__(
        self,
        config: BackboneConfig,
        *,
        pooling: HeadPooling,
        dropout_rate: float,
        rngs: nnx.Rngs,
        use_bias: bool = True,
    ) -> None:
        self.score = linear(config.output_size, 1, use_bias=use_bias, rngs=rngs)
        self.pooling: HeadPooling = pooling
        self.dropout_rate = dropout_rate

    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        *,
        mask: Bool[Array, "B S"],
        key: Key[Array, ""] | None = None,
    ) -> Float32[Array, " B"]:
        """Score the texts; a `key` turns dropout on."""
        pooled = dropout(pool(hidden, mask, self.pooling), self.dropout_rate, key)
        return self.score(pooled)[:, 0]


class DenseHead(nnx.Module):
    """A dense layer, an activation and a linear layer: the classifier of most encoders.

    Args:
        drops_input: whether dropout stands before the dense layer too, besides the one after the
            activation.
    """

    def __init__(
        self,
        config: BackboneConfig,
        *,
        pooling: HeadPooling = "first",
        activation: str = "tanh",
        drops_input: bool = True,
        dropout_rate: float,
        rngs: nnx.Rngs,
    ) -> None:
        width = config.output_size
        self.dense = linear(width, width, rngs=rngs)
        self.score = linear(width, 1, rngs=rngs)
        self.pooling: HeadPooling = pooling
        self.activation = activation
        self.drops_input = drops_input
        self.dropout_rate = dropout_rate

    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        *,
        mask: Bool[Array, "B S"],
        key: Key[Array, ""] | None = None,
    ) -> Float32[Array, " B"]:
        """Score the texts; a `key` turns dropout on."""
        input_key, inner_key = split_key(key, 2)
        pooled = pool(hidden, mask, self.pooling)
        if self.drops_input:
            pooled = dropout(pooled, self.dropout_rate, input_key)
        inner = ACTIVATIONS[self.activation](self.dense(pooled))
        return self.score(dropout(inner, self.dropout_rate, inner_key))[:, 0]


def linear(inputs: int, outputs: int, *, rngs: nnx.Rngs, use_bias: bool = True) -> nnx.Linear:
    """A linear layer of a head, in float32."""
    initial = jax.nn.initializers.normal(SCORE_STANDARD_DEVIATION)
    return nnx.Linear(
        inputs, outputs, use_bias=use_bias, kernel_init=initial, dtype=jnp.float32, rngs=rngs
    )
