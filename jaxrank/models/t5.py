"""T5: an encoder-decoder with relative position biases and normalisation before each part.

Raffel et al., 2020, arXiv 1910.10683. Matches transformers' T5Model, and with the classification
head T5ForSequenceClassification with one label: root-mean-square norms without biases, attention
without scaling, one table of position biases a stack, ReLU or (T5 v1.1) gated GELU. Dropout stands
after the embeddings, on the attention probabilities, inside and after each part, and at the end.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

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
    GatedFeedForward,
    MultiHeadAttention,
    RMSNorm,
    split_key,
)
from jaxrank.models.packing import EVERYTHING, Visible
from jaxrank.models.position_bias import PositionBias
from jaxrank.models.stack import LayerStack, Remat
from jaxrank.ops.dropout import dropout
from jaxrank.shapes import Array, Float, Float32, Int, Key


@dataclass(frozen=True)
class T5Config(EncoderDecoderConfig):
    """Sizes and constants of a T5; the defaults are t5-base."""

    vocab_size: int = 32128
    """Rows of the token table: 32,100 ids, padded to a multiple of 128 in the published models."""

    hidden_size: int = 768
    """Width of a token's vector; the default is the base size."""

    num_layers: int = 12
    """Layers of the encoder; the default is the base size."""

    num_decoder_layers: int | None = None
    """Layers of the decoder; None: as many as the encoder has, as in the published sizes."""

    num_heads: int = 12
    """Attention heads; the default is the base size."""

    head_size: int = 64
    """Width of a head. All heads together may be wider than hidden_size (in t5-3b and t5-11b)."""

    intermediate_size: int = 3072
    """Width inside the feed-forward part; the default is the base size of v1.0."""

    feed_forward: Literal["relu", "gated-gelu"] = "relu"
    """Its kind: one projection and ReLU (v1.0), or a projection times a GELU gate (v1.1)."""

    num_buckets: int = 32
    """Rows of a table of position biases; the encoder shares them between both directions."""

    max_distance: int = 128
    """Distance in tokens from which on all have one bias; as published."""

    dropout: float = 0.1
    """Rate of all dropout outside the score head, in training only; as published."""

    layer_norm_epsilon: float = 1e-6
    """Added to the mean square in every normalisation; as published."""

    decoder_start_token_id: int = 0
    """What the decoder reads first; in the published models the pad token, 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_buckets < 4 or self.max_distance <= self.num_buckets // 2:
            raise InputError(
                f"T5Config: num_buckets is {self.num_buckets} and max_distance "
                f"{self.max_distance}; needed are at least 4 buckets and a distance beyond half "
                "their number"
            )

    @property
    def decoder_layers(self) -> int:
        """Layers of the decoder."""
        return self.num_decoder_layers or self.num_layers

    @property
    def is_gated(self) -> bool:
        """Whether the feed-forward part has a gate."""
        return self.feed_forward == "gated-gelu"

    @property
    def activation(self) -> str:
        """The feed-forward part's function by transformers' name; theirs is GELU by tanh."""
        return "gelu_new" if self.is_gated else "relu"


class T5Layer(nnx.Module):
    """Self-attention, in a decoder attention to the encoder, and feed-forward; matches T5Block."""

    def __init__(
        self, config: T5Config, *, is_decoder: bool, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> None:
        self.attention_norm = _norm(config, dtype=dtype)
        self.attention = _attention(config, dtype=dtype, rngs=rngs)
        if is_decoder:
            self.cross_attention_norm = _norm(config, dtype=dtype)
            self.cross_attention = _attention(config, dtype=dtype, rngs=rngs)
        self.feed_forward_norm = _norm(config, dtype=dtype)
        # Two names for two kinds, since weight tables go by name.
        kind = GatedFeedForward if config.is_gated else partial(FeedForward, use_bias=False)
        feed_forward = kind(
            config.hidden_size,
            config.intermediate_size,
            activation="gelu_tanh" if config.is_gated else "relu",
            initial=_initial,
            dtype=dtype,
            rngs=rngs,
        )
        if config.is_gated:
            self.gated_feed_forward = feed_forward
        else:
            self.feed_forward = feed_forward
        self.is_decoder = is_decoder
        self.is_gated = config.is_gated
        self.dropout_rate = config.dropout

    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        *,
        bias: Float32[Array, "1 H L L"],
        visible: Visible = EVERYTHING,
        source: Float[Array, "B S D"] | None = None,
        source_visible: Visible = EVERYTHING,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "B L D"]:
        """Apply the layer; a `key` turns dropout on."""
        probability, mixed, cross_probability, crossed, inner, transformed = split_key(key, 6)
        update = self.attention(
            self.attention_norm(hidden),
            visible=visible,
            bias=bias,
            is_causal=self.is_decoder,
            key=probability,
        )
        hidden = hidden + dropout(update, self.dropout_rate, mixed)
        if self.is_decoder:
            update = self.cross_attention(
                self.cross_attention_norm(hidden),
                source=source,
                visible=source_visible,
                key=cross_probability,
            )
            hidden = hidden + dropout(update, self.dropout_rate, crossed)
        feed_forward = self.gated_feed_forward if self.is_gated else self.feed_forward
        update = feed_forward(
            self.feed_forward_norm(hidden),
            dropout=lambda x: dropout(x, self.dropout_rate, inner),
        )
        return hidden + dropout(update, self.dropout_rate, transformed)


class T5Stack(nnx.Module):
    """The encoder or the decoder, from token vectors on; matches T5Stack."""

    def __init__(
        self,
        config: T5Config,
        *,
        is_decoder: bool,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
        remat: Remat | None,
        unroll: int,
    ) -> None:
        self.position_bias = PositionBias(
            config.num_heads,
            num_buckets=config.num_buckets,
            max_distance=config.max_distance,
            is_causal=is_decoder,
            standard_deviation=config.hidden_size**-0.5,
            rngs=rngs,
        )
        self.layers = LayerStack(
            lambda rngs: T5Layer(config, is_decoder=is_decoder, dtype=dtype, rngs=rngs),
            config.decoder_layers if is_decoder else config.num_layers,
            rngs=rngs,
            remat=remat or "projections",
            unroll=unroll,
        )
        self.norm = _norm(config, dtype=dtype)
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
        """The result, and if asked for the embeddings, all inner layers' outputs and the result."""
        del positions  # biases go by differences, which are those of the places in the row
        embedded_key, layers_key, result_key = split_key(key, 3)
        embedded = dropout(embedded, self.dropout_rate, embedded_key)
        hidden, outputs, _ = self.layers(
            embedded,
            key=layers_key,
            return_hidden_states=return_hidden_states,
            bias=self.position_bias(embedded.shape[1]),
            visible=visible,
            source=source,
            source_visible=source_visible,
        )
        hidden = dropout(self.norm(hidden), self.dropout_rate, result_key)
        return hidden, (embedded, *outputs[:-1], hidden) if return_hidden_states else ()


class T5(EncoderDecoder):
    """Encoder and decoder over one token table; matches transformers' T5Model."""

    def __init__(
        self,
        config: T5Config,
        *,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
        remat: Remat | None = None,
        unroll: int = 1,
    ) -> None:
        self.config = config
        self.token = Embedding(
            config.vocab_size, config.hidden_size, standard_deviation=1.0, dtype=dtype, rngs=rngs
        )
        make = partial(T5Stack, config, dtype=dtype, rngs=rngs, remat=remat, unroll=unroll)
        self.encoder = make(is_decoder=False)
        self.decoder = make(is_decoder=True)


# The start of T5PreTrainedModel._init_weights: normal, with a variance of one over the inputs.
_initial = jax.nn.initializers.variance_scaling(1.0, "fan_in", "normal")


def _attention(config: T5Config, *, dtype: DTypeLike, rngs: nnx.Rngs) -> MultiHeadAttention:
    attention = MultiHeadAttention(
        config.hidden_size,
        num_heads=config.num_heads,
        head_size=config.head_size,
        use_bias=False,
        scale=1.0,
        dropout_rate=config.dropout,
        initial=_initial,
        dtype=dtype,
        rngs=rngs,
    )
    # Scores are not scaled, so the queries start with the factor that others scale by.
    kernel = attention.query.kernel
    kernel.set_value(kernel.get_value() * config.head_size**-0.5)
    return attention


def _norm(config: T5Config, *, dtype: DTypeLike) -> RMSNorm:
    return RMSNorm(config.hidden_size, epsilon=config.layer_norm_epsilon, dtype=dtype)


BASE = T5Config()
PRESETS = {
    "t5-tiny": replace(
        BASE, hidden_size=64, num_layers=2, num_heads=2, head_size=32, intermediate_size=128
    ),
    "t5-base": BASE,
    "t5-large": replace(
        BASE, hidden_size=1024, num_layers=24, num_heads=16, intermediate_size=4096
    ),
    "t5-v1.1-base": replace(BASE, intermediate_size=2048, feed_forward="gated-gelu"),
}

FAMILY = Family(
    name="t5",
    config_class=T5Config,
    backbone=T5,
    pooling="first",
    wording="encoder-decoder",
    classification_head=partial(DenseHead, pooling="last"),
    presets=PRESETS,
    lora_targets=("query", "key", "value", "output", "gate", "up", "down"),
    encode_options=ENCODE_OPTIONS,
)
