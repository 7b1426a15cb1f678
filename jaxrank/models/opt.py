"""OPT: a causal decoder with learned positions and ReLU.

Zhang et al., 2022, arXiv 2205.01068. Matches transformers' OPTModel, and with the classification
head OPTForSequenceClassification with one label. All sizes normalise before each part and once at
the end, but for 350m, which normalises after each residual sum and has token vectors of another
width than its layers.
"""

from dataclasses import dataclass, replace

import jax
from flax import nnx
from jax import numpy as jnp
from jax.typing import DTypeLike

from jaxrank.errors import InputError
from jaxrank.models.backbone import BackboneConfig, Family
from jaxrank.models.causal import CausalAttention, CausalDecoder, classification_head
from jaxrank.models.layers import (
    Embedding,
    FeedForward,
    LayerNorm,
    Linear,
    PositionEmbedding,
    split_key,
)
from jaxrank.models.packing import Visible
from jaxrank.models.prefix_cache import KeysAndValues, key_value_arrays
from jaxrank.models.stack import Remat
from jaxrank.models.states import StateArray
from jaxrank.ops.dropout import dropout
from jaxrank.shapes import Array, Float, Int, Key

POSITION_OFFSET = 2  # the first rows of the position table belong to no position
_EPSILON = 1e-5  # added to the variance; OPT's configuration has no such attribute


@dataclass(frozen=True)
class OptConfig(BackboneConfig):
    """Sizes and constants of an OPT decoder; the defaults are opt-125m."""

    vocab_size: int = 50272
    """Rows of the token table; OPT's 50,265 tokens, padded to a multiple of 8."""

    hidden_size: int = 768
    """Width of the residual stream; the default is the 125m size."""

    num_layers: int = 12
    """Decoder layers; the default is the 125m size."""

    num_heads: int = 12
    """Attention heads, each hidden_size / num_heads wide."""

    intermediate_size: int = 3072
    """Width inside the feed-forward part; the published sizes take 4 x hidden_size."""

    embedding_size: int | None = None
    """Width of a token's vector where it enters and leaves; if it is not hidden_size, projections
    stand between. None: hidden_size. Only 350m has another, 512."""

    max_position_embeddings: int = 2048
    """Longest input, in tokens; the position table has two rows more. As published."""

    normalises_first: bool = True
    """Whether attention and feed-forward read normalised vectors, with one more normalisation at
    the end; False: each residual sum is normalised. False only in 350m."""

    use_bias: bool = True
    """Whether linear layers have biases; the published models have them."""

    hidden_dropout: float = 0.1
    """Rate before each residual sum, in training only; as published."""

    attention_dropout: float = 0.0
    """Rate on the attention probabilities, in training only; as published."""

    initializer_range: float = 0.02
    """Standard deviation of random weights at the start; as published."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden_size % self.num_heads:
            raise InputError(
                f"OptConfig: hidden_size is {self.hidden_size}; it must be a multiple of "
                f"num_heads ({self.num_heads})"
            )

    @property
    def max_length(self) -> int:
        """Longest input in tokens: one for each position."""
        return self.max_position_embeddings

    @property
    def output_size(self) -> int:
        """Width of what leaves the decoder: that of the token vectors."""
        return self.embedding_size or self.hidden_size


class OptLayer(nnx.Module):
    """Attention and feed-forward, normalised before or after; matches OPTDecoderLayer."""

    def __init__(self, config: OptConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        initial = jax.nn.initializers.normal(config.initializer_range)
        self.attention_norm = _norm(config, dtype=dtype)
        self.attention = CausalAttention(
            config.hidden_size,
            num_heads=config.num_heads,
            use_bias=config.use_bias,
            dropout_rate=config.attention_dropout,
            initial=initial,
            dtype=dtype,
            rngs=rngs,
        )
        self.feed_forward_norm = _norm(config, dtype=dtype)
        self.feed_forward = FeedForward(
            config.hidden_size,
            config.intermediate_size,
            activation="relu",
            use_bias=config.use_bias,
            initial=initial,
            dtype=dtype,
            rngs=rngs,
        )
        self.normalises_first = config.normalises_first
        self.dropout_rate = config.hidden_dropout

    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        *,
        visible: Visible,
        prefix: KeysAndValues | None = None,
        return_state: bool = False,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "B L D"] | tuple[Float[Array, "B L D"], KeysAndValues]:
        """Apply the layer; see CausalDecoder. A `key` turns dropout on."""
        probability_key, mixed_key, transformed_key = split_key(key, 3)
        read = self.attention_norm(hidden) if self.normalises_first else hidden
        mixed, own = self.attention.go_on(read, visible=visible, prefix=prefix, key=probability_key)
        hidden = hidden + dropout(mixed, self.dropout_rate, mixed_key)
        if not self.normalises_first:
            hidden = self.attention_norm(hidden)
        read = self.feed_forward_norm(hidden) if self.normalises_first else hidden
        hidden = hidden + dropout(self.feed_forward(read), self.dropout_rate, transformed_key)
        if not self.normalises_first:
            hidden = self.feed_forward_norm(hidden)
        return (hidden, own) if return_state else hidden


class Opt(CausalDecoder):
    """The decoder; matches transformers' OPTModel."""

    def __init__(
        self,
        config: OptConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
        remat: Remat | None = None,
        unroll: int = 1,
    ) -> None:
        def projection(inputs: int, outputs: int) -> Linear | None:
            if config.output_size == config.hidden_size:
                return None
            initial = jax.nn.initializers.normal(config.initializer_range)
            return Linear(
                inputs, outputs, use_bias=False, kernel_init=initial, dtype=dtype, rngs=rngs
            )

        self.token = Embedding(
            config.vocab_size,
            config.output_size,
            standard_deviation=config.initializer_range,
            dtype=dtype,
            rngs=rngs,
        )
        rows = config.max_position_embeddings + POSITION_OFFSET
        # In float32, so that the gradients' sum over a batch is.
        self.position = PositionEmbedding(
            rows,
            config.hidden_size,
            standard_deviation=config.initializer_range,
            dtype=jnp.float32,
            rngs=rngs,
        )
        self.project_in = projection(config.output_size, config.hidden_size)
        super().__init__(
            config,
            lambda rngs: OptLayer(config, dtype=dtype, rngs=rngs),
            rngs=rngs,
            remat=remat,
            unroll=unroll,
        )
        self.final_norm = _norm(config, dtype=dtype) if config.normalises_first else None
        self.project_out = projection(config.hidden_size, config.output_size)

    @staticmethod
    def state_arrays(config: OptConfig) -> tuple[StateArray, ...]:
        """Keys and values of every head."""
        head_size = config.hidden_size // config.num_heads
        return key_value_arrays(config.num_layers, config.num_heads, head_size)

    def embed(
        self,
        input_ids: Int[Array, "B L"],
        positions: Int[Array, "*batch L"],
        *,
        key: Key[Array, ""] | None,
    ) -> Float[Array, "B L D"]:
        """Token vectors, projected where they are narrower, and positions; nothing is dropped."""
        del key
        tokens = self.token(input_ids)
        if self.project_in is not None:
            tokens = self.project_in(tokens)
        placed = tokens + self.position(positions + POSITION_OFFSET)
        return placed.astype(tokens.dtype)

    def finish(self, hidden: Float[Array, "B L D"]) -> Float[Array, "B L E"]:
        """Normalise, or project back, or both."""
        if self.final_norm is not None:
            hidden = self.final_norm(hidden)
        return hidden if self.project_out is None else self.project_out(hidden)


def _norm(config: OptConfig, *, dtype: DTypeLike) -> LayerNorm:
    return LayerNorm(config.hidden_size, epsilon=_EPSILON, dtype=dtype)


SMALLEST = OptConfig()
PRESETS = {
    "opt-tiny": replace(SMALLEST, hidden_size=64, num_layers=2, num_heads=2, intermediate_size=128),
    "opt-125m": SMALLEST,
    "opt-350m": replace(
        SMALLEST,
        hidden_size=1024,
        num_layers=24,
        num_heads=16,
        intermediate_size=4096,
        embedding_size=512,
        normalises_first=False,
    ),
    "opt-1.3b": replace(
        SMALLEST, hidden_size=2048, num_layers=24, num_heads=32, intermediate_size=8192
    ),
}

FAMILY = Family(
    name="opt",
    config_class=OptConfig,
    backbone=Opt,
    pooling="last",
    wording="decoder",
    classification_head=classification_head,
    presets=PRESETS,
    lora_targets=("token", "query", "key", "value", "output", "up", "down"),
    state_arrays=Opt.state_arrays,
)
