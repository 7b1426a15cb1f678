"""ModernBERT: an encoder whose layers look at all of the text or at a window, by turns.

Warner et al., 2024, arXiv 2412.13663. Matches transformers' ModernBertModel, and with the
classification head ModernBertForSequenceClassification with one label: normalisation before each
part, rotary positions with a base of their own for each kind of layer, GeGLU, and no biases but
that of the score. What differs between layers, the kind and the first one's missing normalisation,
goes through the scan over the layers as values.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
from flax import nnx
from jax import numpy as jnp
from jax.typing import DTypeLike

from jaxrank.errors import InputError
from jaxrank.models.backbone import BackboneConfig, Encoded, Family, check_length
from jaxrank.models.heads import HeadPooling, linear, pool
from jaxrank.models.layers import (
    ACTIVATIONS,
    Embedding,
    GatedFeedForward,
    LayerNorm,
    MultiHeadAttention,
    split_key,
)
from jaxrank.models.packing import Packing, Visible, token_positions, visible_tokens
from jaxrank.models.stack import LayerStack, Remat
from jaxrank.ops.dropout import dropout
from jaxrank.ops.norm import layer_norm
from jaxrank.ops.rotary import Rotary, make_rotary, rotary_frequencies
from jaxrank.shapes import Array, Bool, Float, Float32, Int, Key


@dataclass(frozen=True)
class ModernBertConfig(BackboneConfig):
    """Sizes and constants of a ModernBERT encoder; ModernBERT-base's, but for the pooling."""

    vocab_size: int = 50368
    """Rows of the token table; the default is the published vocabulary."""

    hidden_size: int = 768
    """Width of the residual stream; the default is the base size."""

    num_layers: int = 22
    """Encoder layers; the default is the base size."""

    num_heads: int = 12
    """Attention heads; each is hidden_size / num_heads wide, 64 in the published sizes."""

    intermediate_size: int = 1152
    """Width inside the gated feed-forward part; the default is the base size."""

    max_position_embeddings: int = 8192
    """Longest input, in tokens; ModernBERT was trained with 8,192."""

    global_every: int = 3
    """Every so many layers, from the first on, one looks at the whole text; as published."""

    local_attention: int = 128
    """Width of the other layers' window: half of it, rounded down, to each side; as published."""

    global_rotary_base: float = 160000.0
    """Ratio of the fastest to the slowest turn of a head's channels in global layers."""

    local_rotary_base: float = 10000.0
    """The same in local layers, which see fewer positions."""

    classifier_pooling: Literal["cls", "mean"] = "cls"
    """Which vector the classification head scores, the first token's or the mean of all. The
    published models have the mean; a configuration that does not say means the first token's."""

    embedding_dropout: float = 0.0
    """Rate after the embeddings, in training only; as published."""

    attention_dropout: float = 0.0
    """Rate on the attention probabilities and after the attention, in training only; as
    published."""

    mlp_dropout: float = 0.0
    """Rate on the feed-forward part's inner activations, in training only; as published."""

    norm_epsilon: float = 1e-5
    """Added to the variance in every normalisation; as published."""

    initializer_range: float = 0.02
    """Standard deviation of random weights at the start; as published."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden_size % (2 * self.num_heads):
            raise InputError(
                f"ModernBertConfig: hidden_size is {self.hidden_size}; it must be a multiple of "
                f"2 x num_heads ({self.num_heads}), since channels turn in pairs"
            )

    @property
    def max_length(self) -> int:
        """Longest input in tokens: what the model was trained with."""
        return self.max_position_embeddings

    @property
    def layer_types(self) -> list[str]:
        """The kind of each layer, in transformers' words."""
        kinds = "full_attention", "sliding_attention"
        return [kinds[layer % self.global_every > 0] for layer in range(self.num_layers)]


class ModernBertLayer(nnx.Module):
    """Attention and gated feed-forward; matches ModernBertEncoderLayer without its `attn_norm`."""

    def __init__(self, config: ModernBertConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        initial = jax.nn.initializers.normal(config.initializer_range)
        self.attention = MultiHeadAttention(
            config.hidden_size,
            num_heads=config.num_heads,
            use_bias=False,
            fused="parts",
            dropout_rate=config.attention_dropout,
            initial=initial,
            dtype=dtype,
            rngs=rngs,
        )
        self.feed_forward_norm = _norm(config, dtype=dtype)
        self.feed_forward = GatedFeedForward(
            config.hidden_size,
            config.intermediate_size,
            activation="gelu",
            is_fused=True,
            initial=initial,
            dtype=dtype,
            rngs=rngs,
        )
        self.config = config

    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        *,
        visible: Visible,
        rotary: tuple[Rotary, Rotary],
        is_global: Bool[Array, ""],
        has_attention_norm: Bool[Array, ""],
        attention_norm: Float[Array, " D"],
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "B L D"]:
        """Apply the layer.

        Args:
            rotary: the tables of global and of local layers.
            is_global: whether it looks at the whole text.
            has_attention_norm: whether the attention's input is normalised, by the weight
                `attention_norm`.
            key: turns dropout on.
        """
        config = self.config
        probability_key, mixed_key, inner_key = split_key(key, 3)
        zero, epsilon = jnp.zeros_like(attention_norm), config.norm_epsilon
        normed = layer_norm(hidden, attention_norm, zero, epsilon=epsilon).astype(hidden.dtype)
        mixed = self.attention(
            jnp.where(has_attention_norm, normed, hidden),
            visible=visible,
            window=jnp.where(is_global, hidden.shape[1], config.local_attention // 2),
            rotary=Rotary(*(jnp.where(is_global, *tables) for tables in zip(*rotary, strict=True))),
            key=probability_key,
        )
        hidden = hidden + dropout(mixed, config.attention_dropout, mixed_key)
        return hidden + self.feed_forward(
            self.feed_forward_norm(hidden),
            dropout=lambda inner: dropout(inner, config.mlp_dropout, inner_key),
        )


class ModernBert(nnx.Module):
    """The encoder; matches transformers' ModernBertModel."""

    def __init__(
        self,
        config: ModernBertConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
        remat: Remat | None = None,
        unroll: int = 1,
    ) -> None:
        self.config = config
        self.embedding = Embedding(
            config.vocab_size,
            config.hidden_size,
            standard_deviation=config.initializer_range,
            dtype=dtype,
            rngs=rngs,
        )
        self.embedding_norm = _norm(config, dtype=dtype)
        # Outside of the stack, since the first layer has none: the embeddings are normalised.
        self.attention_norms = nnx.Param(jnp.ones((config.num_layers - 1, config.hidden_size)))
        self.layers = LayerStack(
            lambda rngs: ModernBertLayer(config, dtype=dtype, rngs=rngs),
            config.num_layers,
            rngs=rngs,
            remat=remat or "projections",  # as in BERT
            unroll=unroll,
        )
        self.final_norm = _norm(config, dtype=dtype)

    def encode(
        self,
        input_ids: Int[Array, "B L"],
        *,
        mask: Bool[Array, "B L"],
        token_type_ids: Int[Array, "B L"] | None = None,
        packing: Packing | None = None,
        key: Key[Array, ""] | None = None,
        return_hidden_states: bool = False,
    ) -> Encoded:
        """Encode texts; see Backbone. There are no token types: those given change nothing.

        The hidden states are the embeddings, all layers' but the last one's, and the result.
        """
        check_length(input_ids, self.config, packing)
        config = self.config
        embeddings_key, layers_key = split_key(key, 2)
        embedded = self.embedding_norm(self.embedding(input_ids))
        embedded = dropout(embedded, config.embedding_dropout, embeddings_key)
        positions = token_positions(input_ids, packing)
        width = config.hidden_size // config.num_heads
        global_rotary, local_rotary = (
            make_rotary(positions, jnp.asarray(rotary_frequencies(width, base=base)))
            for base in (config.global_rotary_base, config.local_rotary_base)
        )
        last, outputs, _ = self.layers(
            embedded,
            key=layers_key,
            return_hidden_states=return_hidden_states,
            visible=visible_tokens(mask, packing),
            rotary=(global_rotary, local_rotary),
            per_layer={
                "is_global": jnp.array([kind == "full_attention" for kind in config.layer_types]),
                "has_attention_norm": jnp.arange(config.num_layers) > 0,
                "attention_norm": jnp.pad(self.attention_norms[...], [(1, 0), (0, 0)]),
            },
        )
        hidden = self.final_norm(last)
        return (hidden, (embedded, *outputs[:-1], hidden)) if return_hidden_states else hidden


class ModernBertHead(nnx.Module):
    """Dense layer, activation, norm and score; the head of ModernBertForSequenceClassification."""

    def __init__(self, config: ModernBertConfig, *, dropout_rate: float, rngs: nnx.Rngs) -> None:
        width = config.hidden_size
        self.dense = linear(width, width, use_bias=False, rngs=rngs)
        self.norm = _norm(config, dtype=jnp.float32)
        self.score = linear(width, 1, rngs=rngs)
        self.pooling: HeadPooling = "mean" if config.classifier_pooling == "mean" else "first"
        self.dropout_rate = dropout_rate

    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        *,
        mask: Bool[Array, "B L"],
        key: Key[Array, ""] | None = None,
    ) -> Float32[Array, " B"]:
        """Score the texts; a `key` turns dropout on."""
        pooled = pool(hidden, mask, self.pooling)
        inner = self.norm(ACTIVATIONS["gelu"](self.dense(pooled)))
        return self.score(dropout(inner, self.dropout_rate, key))[:, 0]


def _norm(config: ModernBertConfig, *, dtype: DTypeLike) -> LayerNorm:
    return LayerNorm(config.hidden_size, epsilon=config.norm_epsilon, dtype=dtype, use_bias=False)


BASE = ModernBertConfig(classifier_pooling="mean")
TINY: Any = {"hidden_size": 64, "num_layers": 3, "num_heads": 2, "intermediate_size": 96}
PRESETS = {
    "modernbert-tiny": replace(BASE, **TINY, vocab_size=1010, local_attention=16),
    "modernbert-base": BASE,
    "modernbert-large": replace(
        BASE, hidden_size=1024, num_layers=28, num_heads=16, intermediate_size=2624
    ),
}

FAMILY = Family(
    name="modernbert",
    config_class=ModernBertConfig,
    backbone=ModernBert,
    pooling="first",
    wording="encoder",
    classification_head=ModernBertHead,
    presets=PRESETS,
    lora_targets=("qkv", "output", "gate_and_up", "down"),
)
