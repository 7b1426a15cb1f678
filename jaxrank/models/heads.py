"""Score heads: from one vector a text to one number a text, in float32."""

import jax
from flax import nnx
from jax import numpy as jnp

from jaxrank.models.backbone import BackboneConfig
from jaxrank.ops.dropout import dropout
from jaxrank.shapes import Array, Float, Float32, Key

SCORE_STANDARD_DEVIATION = 0.02  # as transformers starts the score layer of BERT


class LinearHead(nnx.Module):
    """Dropout and one linear layer with bias: the head of both papers' rerankers."""

    def __init__(self, config: BackboneConfig, *, dropout_rate: float, rngs: nnx.Rngs) -> None:
        self.score = nnx.Linear(
            config.hidden_size,
            1,
            kernel_init=jax.nn.initializers.normal(SCORE_STANDARD_DEVIATION),
            dtype=jnp.float32,
            rngs=rngs,
        )
        self.dropout_rate = dropout_rate

    def __call__(
        self, pooled: Float[Array, "B D"], *, key: Key[Array, ""] | None = None
    ) -> Float32[Array, " B"]:
        """Score the texts' vectors; a `key` turns dropout on."""
        pooled = dropout(pooled.astype(jnp.float32), self.dropout_rate, key)
        return self.score(pooled)[:, 0]
