"""BERT: a bidirectional transformer encoder with normalisation after each residual sum.

Devlin et al., 2019, arXiv 1810.04805. Matches transformers' BertModel, and with the classification
head BertForSequenceClassification with one label: exact GELU, learned positions, token types,
dropout after the embeddings, on the attention probabilities and before each residual sum.
"""

from dataclasses import dataclass, replace

import jax
from flax import nnx
from jax import numpy as jnp
from jax.typing import DTypeLike

from jaxrank.errors import InputError
from jaxrank.models.backbone import Family, check_config
from jaxrank.models.layers import Embedding, LayerNorm, gelu, split_key
from jaxrank.models.stack import LayerStack
from jaxrank.ops.attention import attention
from jaxrank.ops.dropout import dropout
from jaxrank.shapes import Array, Bool, Float, Float32, Int, Key


@dataclass(frozen=True)
class BertConfig:
    """Sizes and constants of a BERT encoder; the defaults are bert-base-uncased."""

    vocab_size: int = 30522
    """Rows of the token table; the default is bert-base-uncased's vocabulary."""

    hidden_size: int = 768
    """Width of a token's vector; the default is the base size."""

    num_layers: int = 12
    """Transformer layers; the default is the base size."""

    num_heads: int = 12
    """Attention heads; each is hidden_size / num_heads wide, 64 in the published sizes."""

    intermediate_size: int = 3072
    """Width inside the feed-forward part; the published sizes take 4 x hidden_size."""

    max_position_embeddings: int = 512
    """Longest input, in tokens: the rows of the position table. BERT was trained with 512."""

    type_vocab_size: int = 2
    """Rows of the token type table: the query is 0, the document 1."""

    hidden_dropout: float = 0.1
    """Rate after the embeddings and before each residual sum, in training only; as published."""

    attention_dropout: float = 0.1
    """Rate on the attention probabilities, in training only; as published."""

    layer_norm_epsilon: float = 1e-12
    """Added to the variance in every normalisation; as published."""

    initializer_range: float = 0.02
    """Standard deviation of random weights at the start; as published."""

    def __post_init__(self) -> None:
        check_config(self)
        if self.hidden_size % self.num_heads:
            raise InputError(
                f"BertConfig: hidden_size is {self.hidden_size}; it must be a multiple of "
                f"num_heads ({self.num_heads})"
            )

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_heads


class SelfAttention(nnx.Module):
    """Multi-head attention over all real tokens; matches BertSelfAttention and its output layer."""

    def __init__(self, config: BertConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        width = config.hidden_size
        self.query = _linear(config, width, width, dtype=dtype, rngs=rngs)
        self.key = _linear(config, width, width, dtype=dtype, rngs=rngs)
        self.value = _linear(config, width, width, dtype=dtype, rngs=rngs)
        self.output = _linear(config, width, width, dtype=dtype, rngs=rngs)
        self.num_heads = config.num_heads
        self.dropout_rate = config.attention_dropout

    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        *,
        mask: Bool[Array, "B L"],
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "B L D"]:
        """Mix the tokens; a masked position gives nothing to the others."""
        heads_BLHK = (*hidden.shape[:2], self.num_heads, -1)
        mixed_BLHK = attention(
            self.query(hidden).reshape(heads_BLHK),
            self.key(hidden).reshape(heads_BLHK),
            self.value(hidden).reshape(heads_BLHK),
            mask=mask,
            dropout_rate=self.dropout_rate,
            dropout_key=key,
        )
        return self.output(mixed_BLHK.reshape(hidden.shape))


class FeedForward(nnx.Module):
    """Two linear layers around an exact GELU; matches BertIntermediate and BertOutput.dense."""

    def __init__(self, config: BertConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        width, inner = config.hidden_size, config.intermediate_size
        self.up = _linear(config, width, inner, dtype=dtype, rngs=rngs)
        self.down = _linear(config, inner, width, dtype=dtype, rngs=rngs)

    def __call__(self, hidden: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        """Transform each token on its own."""
        return self.down(gelu(self.up(hidden)))


class BertLayer(nnx.Module):
    """Attention and feed-forward, each normalised after its residual sum; matches BertLayer."""

    def __init__(self, config: BertConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.attention = SelfAttention(config, dtype=dtype, rngs=rngs)
        self.attention_norm = _norm(config, dtype=dtype)
        self.feed_forward = FeedForward(config, dtype=dtype, rngs=rngs)
        self.feed_forward_norm = _norm(config, dtype=dtype)
        self.dropout_rate = config.hidden_dropout

    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        *,
        mask: Bool[Array, "B L"],
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "B L D"]:
        """Apply the layer; a `key` turns dropout on."""
        probability_key, mixed_key, transformed_key = split_key(key, 3)
        mixed = self.attention(hidden, mask=mask, key=probability_key)
        mixed = dropout(mixed, self.dropout_rate, mixed_key)
        hidden = self.attention_norm(hidden + mixed)
        transformed = dropout(self.feed_forward(hidden), self.dropout_rate, transformed_key)
        return self.feed_forward_norm(hidden + transformed)


class BertEmbeddings(nnx.Module):
    """Token, token type and position vectors, summed and normalised; matches BertEmbeddings."""

    def __init__(self, config: BertConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        def table(rows: int) -> Embedding:
            return Embedding(
                rows,
                config.hidden_size,
                standard_deviation=config.initializer_range,
                dtype=dtype,
                rngs=rngs,
            )

        self.token = table(config.vocab_size)
        self.position = table(config.max_position_embeddings)
        self.token_type = table(config.type_vocab_size)
        self.norm = _norm(config, dtype=dtype)
        self.dropout_rate = config.hidden_dropout

    def __call__(
        self,
        input_ids: Int[Array, "B L"],
        token_type_ids: Int[Array, "B L"],
        *,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "B L D"]:
        """Embed the tokens; a `key` turns dropout on."""
        positions_LD = self.position(jnp.arange(input_ids.shape[1]))
        hidden = self.token(input_ids) + self.token_type(token_type_ids) + positions_LD[None]
        return dropout(self.norm(hidden), self.dropout_rate, key)


class Bert(nnx.Module):
    """The encoder; matches transformers' BertModel without its pooler."""

    def __init__(
        self,
        config: BertConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
        remat: bool = False,
        unroll: int = 1,
    ) -> None:
        self.config = config
        self.embeddings = BertEmbeddings(config, dtype=dtype, rngs=rngs)
        self.layers = LayerStack(
            lambda rngs: BertLayer(config, dtype=dtype, rngs=rngs),
            config.num_layers,
            rngs=rngs,
            # Without remat too: what lies between the projections is cheap to recompute and costly
            # to keep. A training step of minilm-l6 (32 x 128, float32, one CPU core) took 2.65 s
            # and 1.9 GiB instead of 3.1 s and 2.9 GiB.
            keep="inputs" if remat else "projections",
            unroll=unroll,
        )

    def encode(
        self,
        input_ids: Int[Array, "B L"],
        *,
        mask: Bool[Array, "B L"],
        token_type_ids: Int[Array, "B L"] | None = None,
        key: Key[Array, ""] | None = None,
        return_hidden_states: bool = False,
    ) -> Float[Array, "B L D"] | tuple[Float[Array, "B L D"], Float[Array, "states B L D"]]:
        """Encode texts; see Backbone. The hidden states are the embeddings, then each layer's."""
        length, longest = input_ids.shape[1], self.config.max_position_embeddings
        if length > longest:
            raise ValueError(f"input_ids are {length} long; this model has {longest} positions")
        if token_type_ids is None:
            token_type_ids = jnp.zeros_like(input_ids)
        embeddings_key, layers_key = split_key(key, 2)
        embedded = self.embeddings(input_ids, token_type_ids, key=embeddings_key)
        if not return_hidden_states:
            return self.layers(embedded, key=layers_key, mask=mask)
        hidden, outputs = self.layers(
            embedded, key=layers_key, mask=mask, return_hidden_states=True
        )
        return hidden, jnp.concatenate([embedded[None], outputs])


class ClassificationHead(nnx.Module):
    """Dense and tanh on [CLS], dropout, one score; matches BertForSequenceClassification's."""

    def __init__(self, config: BertConfig, *, dropout_rate: float, rngs: nnx.Rngs) -> None:
        width = config.hidden_size
        self.pooler = _linear(config, width, width, dtype=jnp.float32, rngs=rngs)
        self.score = _linear(config, width, 1, dtype=jnp.float32, rngs=rngs)
        self.dropout_rate = dropout_rate

    def __call__(
        self, pooled: Float[Array, "B D"], *, key: Key[Array, ""] | None = None
    ) -> Float32[Array, " B"]:
        """Score the texts' [CLS] vectors; a `key` turns dropout on."""
        pooled = jnp.tanh(self.pooler(pooled.astype(jnp.float32)))
        return self.score(dropout(pooled, self.dropout_rate, key))[:, 0]


def _linear(
    config: BertConfig, inputs: int, outputs: int, *, dtype: DTypeLike, rngs: nnx.Rngs
) -> nnx.Linear:
    initial = jax.nn.initializers.normal(config.initializer_range)
    return nnx.Linear(inputs, outputs, kernel_init=initial, dtype=dtype, rngs=rngs)


def _norm(config: BertConfig, *, dtype: DTypeLike) -> LayerNorm:
    return LayerNorm(config.hidden_size, epsilon=config.layer_norm_epsilon, dtype=dtype)


BASE = BertConfig()
PRESETS = {
    "bert-base": BASE,
    "bert-large": replace(
        BASE, hidden_size=1024, num_layers=24, num_heads=16, intermediate_size=4096
    ),
    "minilm-l6": replace(BASE, hidden_size=384, num_layers=6, intermediate_size=1536),
}

FAMILY = Family(
    name="bert",
    config_class=BertConfig,
    backbone=Bert,
    pooling="first",
    classification_head=ClassificationHead,
    presets=PRESETS,
)
