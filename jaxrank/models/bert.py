"""BERT and its kin: bidirectional encoders with normalisation after each residual sum.

Devlin et al., 2019, arXiv 1810.04805. Matches transformers' BertModel, and with the classification
head BertForSequenceClassification with one label: exact GELU, learned positions, token types,
dropout after the embeddings, on the attention probabilities and before each residual sum.

RoBERTa (arXiv 1907.11692) and XLM-RoBERTa (1911.02116) differ in the row of the position table
that the first token takes, ELECTRA (2003.10555) in the width of its embeddings, all three in the
classification head. They match RobertaModel, XLMRobertaModel, ElectraModel and the sequence
classification classes beside those.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
from flax import nnx
from jax import numpy as jnp
from jax.typing import DTypeLike

from jaxrank.errors import InputError
from jaxrank.models.backbone import BackboneConfig, Encoded, Family, check_length
from jaxrank.models.heads import DenseHead
from jaxrank.models.layers import Embedding, FeedForward, LayerNorm, MultiHeadAttention, split_key
from jaxrank.models.stack import LayerStack
from jaxrank.ops.dropout import dropout
from jaxrank.shapes import Array, Bool, Float, Int, Key


@dataclass(frozen=True)
class BertConfig(BackboneConfig):
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
        super().__post_init__()
        if self.hidden_size % self.num_heads:
            raise InputError(
                f"{type(self).__name__}: hidden_size is {self.hidden_size}; it must be a multiple "
                f"of num_heads ({self.num_heads})"
            )
        if self.max_length < 1:
            rows, row = self.max_position_embeddings, self.first_position
            raise InputError(f"max_position_embeddings is {rows}; the first token takes row {row}")

    @property
    def first_position(self) -> int:
        """Row of the position table that the first token takes."""
        return 0

    @property
    def embedding_width(self) -> int:
        """Width of the embeddings; those of another width than the layers' are projected."""
        return self.hidden_size

    @property
    def max_length(self) -> int:
        """Longest input in tokens: one for each position from the first on."""
        return self.max_position_embeddings - self.first_position


@dataclass(frozen=True)
class RobertaConfig(BertConfig):
    """As BertConfig, with the published models' place for the first token."""

    pad_token_id: int = 1
    """The first token takes row pad_token_id + 1 of the position table: fairseq numbered tokens
    from there. All published models have 1."""

    @property
    def first_position(self) -> int:
        """Row of the position table that the first token takes."""
        return self.pad_token_id + 1


@dataclass(frozen=True)
class ElectraConfig(BertConfig):
    """As BertConfig, with a width of their own for the embeddings."""

    embedding_size: int = 768
    """Width of the embeddings; where it is not hidden_size, a linear layer follows them. The small
    sizes have 128 for a hidden_size of 256."""

    @property
    def embedding_width(self) -> int:
        """Width of the embeddings; those of another width than the layers' are projected."""
        return self.embedding_size


class BertLayer(nnx.Module):
    """Attention and feed-forward, each normalised after its residual sum; matches BertLayer."""

    def __init__(self, config: BertConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        initial = jax.nn.initializers.normal(config.initializer_range)
        self.attention = MultiHeadAttention(
            config.hidden_size,
            num_heads=config.num_heads,
            dropout_rate=config.attention_dropout,
            initial=initial,
            dtype=dtype,
            rngs=rngs,
        )
        self.attention_norm = _norm(config, config.hidden_size, dtype=dtype)
        self.feed_forward = FeedForward(
            config.hidden_size,
            config.intermediate_size,
            activation="gelu",
            initial=initial,
            dtype=dtype,
            rngs=rngs,
        )
        self.feed_forward_norm = _norm(config, config.hidden_size, dtype=dtype)
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
        table = partial(
            Embedding,
            features=config.embedding_width,
            standard_deviation=config.initializer_range,
            dtype=dtype,
            rngs=rngs,
        )
        self.token = table(config.vocab_size)
        self.position = table(config.max_position_embeddings)
        self.token_type = table(config.type_vocab_size)
        self.norm = _norm(config, config.embedding_width, dtype=dtype)
        self.first_position = config.first_position
        self.dropout_rate = config.hidden_dropout

    def __call__(
        self,
        input_ids: Int[Array, "B L"],
        token_type_ids: Int[Array, "B L"],
        *,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "B L D"]:
        """Embed the tokens; a `key` turns dropout on."""
        # Transformers' RoBERTa counts the tokens that are not pads. Padding is on the right, so its
        # positions are these, but in a text that itself holds the pad's literal (`<pad>`): there
        # transformers gives that token the pad's row and all later ones the row before ours.
        positions_LD = self.position(self.first_position + jnp.arange(input_ids.shape[1]))
        hidden = self.token(input_ids) + self.token_type(token_type_ids) + positions_LD[None]
        return dropout(self.norm(hidden), self.dropout_rate, key)


class Bert(nnx.Module):
    """The encoder; matches transformers' BertModel, without its pooler, and its kin."""

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
        widths = config.embedding_width, config.hidden_size
        initial = jax.nn.initializers.normal(config.initializer_range)
        projection = partial(nnx.Linear, kernel_init=initial, dtype=dtype, rngs=rngs)
        self.projection = projection(*widths) if widths[0] != widths[1] else None
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
    ) -> Encoded:
        """Encode texts; see Backbone. The hidden states are the embeddings, then each layer's."""
        check_length(input_ids, self.config)
        if token_type_ids is None:
            token_type_ids = jnp.zeros_like(input_ids)
        embeddings_key, layers_key = split_key(key, 2)
        embedded = self.embeddings(input_ids, token_type_ids, key=embeddings_key)
        if self.projection is not None:
            embedded = self.projection(embedded)
        result: Any = self.layers(
            embedded, key=layers_key, mask=mask, return_hidden_states=return_hidden_states
        )
        if not return_hidden_states:
            return result
        hidden, outputs = result
        return hidden, (embedded, *outputs)


def _norm(config: BertConfig, width: int, *, dtype: DTypeLike) -> LayerNorm:
    return LayerNorm(width, epsilon=config.layer_norm_epsilon, dtype=dtype)


TINY = {"hidden_size": 64, "num_layers": 2, "num_heads": 2, "intermediate_size": 128}
LARGE = {"hidden_size": 1024, "num_layers": 24, "num_heads": 16, "intermediate_size": 4096}
BASE = BertConfig()
ROBERTA_BASE = RobertaConfig(
    vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, layer_norm_epsilon=1e-5
)
XLM_ROBERTA_BASE = replace(ROBERTA_BASE, vocab_size=250002)
ELECTRA_BASE = ElectraConfig()

PRESETS = {
    "bert-tiny": replace(BASE, **TINY),
    "bert-base": BASE,
    "bert-large": replace(BASE, **LARGE),
    "minilm-l6": replace(BASE, hidden_size=384, num_layers=6, intermediate_size=1536),
}
ROBERTA_PRESETS = {
    "roberta-tiny": replace(ROBERTA_BASE, **TINY),
    "roberta-base": ROBERTA_BASE,
    "roberta-large": replace(ROBERTA_BASE, **LARGE),
}
XLM_ROBERTA_PRESETS = {
    "xlm-roberta-tiny": replace(XLM_ROBERTA_BASE, **TINY, vocab_size=1000),
    "xlm-roberta-base": XLM_ROBERTA_BASE,
    "xlm-roberta-large": replace(XLM_ROBERTA_BASE, **LARGE),
}
ELECTRA_PRESETS = {
    "electra-tiny": replace(ELECTRA_BASE, **TINY, embedding_size=32),
    "electra-small": ElectraConfig(
        embedding_size=128, hidden_size=256, num_heads=4, intermediate_size=1024
    ),
    "electra-base": ELECTRA_BASE,
    "electra-large": replace(ELECTRA_BASE, **LARGE, embedding_size=1024),
}

FAMILY = Family(
    name="bert",
    config_class=BertConfig,
    backbone=Bert,
    pooling="first",
    wording="encoder",
    classification_head=partial(DenseHead, drops_input=False),
    presets=PRESETS,
)
ROBERTA = replace(
    FAMILY,
    name="roberta",
    config_class=RobertaConfig,
    classification_head=DenseHead,
    presets=ROBERTA_PRESETS,
)
XLM_ROBERTA = replace(ROBERTA, name="xlm-roberta", presets=XLM_ROBERTA_PRESETS)
ELECTRA = replace(
    FAMILY,
    name="electra",
    config_class=ElectraConfig,
    classification_head=partial(DenseHead, activation="gelu"),
    presets=ELECTRA_PRESETS,
)
