"""BART: an encoder-decoder with learned positions and normalisation after each residual sum.

Lewis et al., 2020, arXiv 1910.13461. Matches transformers' BartModel, and with the classification
head BartForSequenceClassification with one label: exact GELU, biases everywhere, the sum of token
and position normalised. Dropout stands after that norm, on the attention probabilities, on the
inner activations and before each residual sum.

What P2 (arXiv 2412.14354) pools of BART is not known to us. Our linear head scores the first
decoded position, from the start token, as P1 scores T5.
"""

from dataclasses import dataclass, replace
from functools import partial

import jax
from flax import nnx
from jax import numpy as jnp
from jax.typing import DTypeLike

from jaxrank.errors import InputError
from jaxrank.models.backbone import Family
from jaxrank.models.encoder_decoder import ENCODE_OPTIONS, EncoderDecoder, EncoderDecoderConfig
from jaxrank.models.heads import DenseHead
from jaxrank.models.layers import (
    Embedding,
    FeedForward,
    LayerNorm,
    MultiHeadAttention,
    PositionEmbedding,
    split_key,
)
from jaxrank.models.packing import EVERYTHING, Visible
from jaxrank.models.stack import LayerStack, Remat
from jaxrank.ops.dropout import dropout
from jaxrank.shapes import Array, Float, Int, Key

POSITION_OFFSET = 2  # Position 0 is row 2, in fairseq the first id behind the pad token's.


@dataclass(frozen=True)
class BartConfig(EncoderDecoderConfig):
    """Sizes and constants of a BART.

    The default sizes are facebook/bart-base's; the two rates of 0 are what a configuration means
    that leaves them out, which the published ones do not.
    """

    vocab_size: int = 50265
    """Rows of the token table; the default is RoBERTa's vocabulary."""

    hidden_size: int = 768
    """Width of a token's vector; the default is the base size."""

    num_layers: int = 6
    """Layers of the encoder; the default is the base size."""

    num_decoder_layers: int = 6
    """Layers of the decoder; the published sizes have as many as in the encoder."""

    num_heads: int = 12
    """Attention heads in both stacks; each is hidden_size / num_heads wide."""

    intermediate_size: int = 3072
    """Width inside the feed-forward parts of both stacks; as published, 4 x hidden_size."""

    max_position_embeddings: int = 1024
    """Longest input, in tokens; BART was trained with 1,024."""

    dropout: float = 0.1
    """Rate after the embeddings and before each residual sum, in training only; as published."""

    attention_dropout: float = 0.0
    """Rate on the attention probabilities, in training only; 0.1 in the published models."""

    activation_dropout: float = 0.0
    """Rate on the inner activations, in training only; 0.1 in the published models."""

    initializer_range: float = 0.02
    """Standard deviation of random weights at the start; as published."""

    decoder_start_token_id: int = 2
    """What the decoder reads first; in the published models the end-of-sequence token, 2."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden_size % self.num_heads:
            raise InputError(
                f"BartConfig: hidden_size is {self.hidden_size}; it must be a multiple of "
                f"num_heads ({self.num_heads})"
            )

    @property
    def max_length(self) -> int:
        """Longest input in tokens: one for each position."""
        return self.max_position_embeddings

    @property
    def decoder_layers(self) -> int:
        """Layers of the decoder."""
        return self.num_decoder_layers


class BartLayer(nnx.Module):
    """Self-attention, in a decoder attention to the encoder, and feed-forward.

    Each is normalised after its residual sum; matches BartEncoderLayer and BartDecoderLayer.
    """

    def __init__(
        self, config: BartConfig, *, is_decoder: bool, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> None:
        initial = jax.nn.initializers.normal(config.initializer_range)
        make_attention = partial(
            MultiHeadAttention,
            config.hidden_size,
            num_heads=config.num_heads,
            dropout_rate=config.attention_dropout,
            initial=initial,
            dtype=dtype,
            rngs=rngs,
        )
        self.attention = make_attention()
        self.attention_norm = _norm(config, dtype=dtype)
        if is_decoder:
            self.cross_attention = make_attention()
            self.cross_attention_norm = _norm(config, dtype=dtype)
        self.feed_forward = FeedForward(
            config.hidden_size,
            config.intermediate_size,
            activation="gelu",
            initial=initial,
            dtype=dtype,
            rngs=rngs,
        )
        self.feed_forward_norm = _norm(config, dtype=dtype)
        self.is_decoder = is_decoder
        self.dropout_rate = config.dropout
        self.inner_dropout_rate = config.activation_dropout

    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        *,
        visible: Visible = EVERYTHING,
        source: Float[Array, "B S D"] | None = None,
        source_visible: Visible = EVERYTHING,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "B L D"]:
        """Apply the layer; a `key` turns dropout on."""
        probability, mixed, cross_probability, crossed, inner, transformed = split_key(key, 6)
        update = self.attention(hidden, visible=visible, is_causal=self.is_decoder, key=probability)
        hidden = self.attention_norm(hidden + dropout(update, self.dropout_rate, mixed))
        if self.is_decoder:
            update = self.cross_attention(
                hidden, source=source, visible=source_visible, key=cross_probability
            )
            hidden = self.cross_attention_norm(hidden + dropout(update, self.dropout_rate, crossed))
        update = self.feed_forward(
            hidden, dropout=lambda x: dropout(x, self.inner_dropout_rate, inner)
        )
        return self.feed_forward_norm(hidden + dropout(update, self.dropout_rate, transformed))


class BartStack(nnx.Module):
    """The encoder or the decoder, from token vectors on; matches BartEncoder and BartDecoder."""

    def __init__(
        self,
        config: BartConfig,
        *,
        is_decoder: bool,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
        remat: Remat | None,
        unroll: int,
    ) -> None:
        self.position = PositionEmbedding(
            config.max_position_embeddings + POSITION_OFFSET,
            config.hidden_size,
            standard_deviation=config.initializer_range,
            dtype=jnp.float32,  # so is the sum with the token's, and the gradients' over a batch
            rngs=rngs,
        )
        self.embedding_norm = _norm(config, dtype=dtype)
        self.layers = LayerStack(
            lambda rngs: BartLayer(config, is_decoder=is_decoder, dtype=dtype, rngs=rngs),
            config.num_decoder_layers if is_decoder else config.num_layers,
            rngs=rngs,
            remat=remat or "projections",
            unroll=unroll,
        )
        self.dropout_rate = config.dropout

    def __call__(
        self,
        embedded: Float[Array, "B L D"],
        positions: Int[Array, "*batch L"],
        *,
        visible: Visible = EVERYTHING,
        source: Float[Array, "B S D"] | None = None,
        source_visible: Visible = EVERYTHING,
        key: Key[Array, ""] | None = None,
        return_hidden_states: bool = False,
    ) -> tuple[Float[Array, "B L D"], tuple[Array, ...]]:
        """The result, and if asked for the normalised embeddings and every layer's output."""
        embedded_key, layers_key = split_key(key, 2)
        embedded = self.embedding_norm(embedded + self.position(positions + POSITION_OFFSET))
        embedded = dropout(embedded, self.dropout_rate, embedded_key)
        hidden, outputs, _ = self.layers(
            embedded,
            key=layers_key,
            return_hidden_states=return_hidden_states,
            visible=visible,
            source=source,
            source_visible=source_visible,
        )
        return hidden, (embedded, *outputs) if return_hidden_states else ()


class Bart(EncoderDecoder):
    """Encoder and decoder over one token table; matches transformers' BartModel."""

    def __init__(
        self,
        config: BartConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
        remat: Remat | None = None,
        unroll: int = 1,
    ) -> None:
        self.config = config
        self.token = Embedding(
            config.vocab_size,
            config.hidden_size,
            standard_deviation=config.initializer_range,
            dtype=dtype,
            rngs=rngs,
        )
        make = partial(BartStack, config, dtype=dtype, rngs=rngs, remat=remat, unroll=unroll)
        self.encoder = make(is_decoder=False)
        self.decoder = make(is_decoder=True)


def _norm(config: BartConfig, *, dtype: DTypeLike) -> LayerNorm:
    # PyTorch's default epsilon: BART's config.json names none.
    return LayerNorm(config.hidden_size, epsilon=1e-5, dtype=dtype)


BASE = BartConfig(attention_dropout=0.1, activation_dropout=0.1)
PRESETS = {
    "bart-tiny": replace(
        BASE,
        hidden_size=64,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=2,
        intermediate_size=128,
    ),
    "bart-base": BASE,
    "bart-large": replace(
        BASE,
        hidden_size=1024,
        num_layers=12,
        num_decoder_layers=12,
        num_heads=16,
        intermediate_size=4096,
    ),
}

FAMILY = Family(
    name="bart",
    config_class=BartConfig,
    backbone=Bart,
    pooling="first",
    wording="encoder",
    classification_head=partial(DenseHead, pooling="last"),
    presets=PRESETS,
    lora_targets=("query", "key", "value", "output", "up", "down"),
    encode_options=ENCODE_OPTIONS,
)
