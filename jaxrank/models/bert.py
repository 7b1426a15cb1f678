"""BERT and its kin: bidirectional encoders with normalisation after each residual sum.

Devlin et al., 2019, arXiv 1810.04805. Matches transformers' BertModel, and with the classification
head BertForSequenceClassification with one label: exact GELU, learned positions, token types,
dropout after the embeddings, on the attention probabilities and before each residual sum.

RoBERTa (arXiv 1907.11692) and XLM-RoBERTa (1911.02116) differ in the row of the position table
that the first token takes, ELECTRA (2003.10555) in the width of its embeddings, all three in the
classification head. They match RobertaModel, XLMRobertaModel, ElectraModel and the sequence
classification classes beside those.
"""

from dataclasses import replace
from functools import partial

import jax
from flax import nnx
from jax import numpy as jnp
from jax.typing import DTypeLike

from jaxrank.models.backbone import Encoded, Family, check_length
from jaxrank.models.bert_config import BertConfig, ElectraConfig, RobertaConfig
from jaxrank.models.heads import DenseHead
from jaxrank.models.layers import (
    Embedding,
    FeedForward,
    LayerNorm,
    Linear,
    MultiHeadAttention,
    PositionEmbedding,
    split_key,
)
from jaxrank.models.packing import Packing, Visible, token_positions, visible_tokens
from jaxrank.models.stack import LayerStack, Remat
from jaxrank.ops.dropout import dropout
from jaxrank.shapes import Array, Bool, Float, Int, Key


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
        visible: Visible,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "B L D"]:
        """Apply the layer; a `key` turns dropout on."""
        probability_key, mixed_key, transformed_key = split_key(key, 3)
        mixed = self.attention(hidden, visible=visible, key=probability_key)
        mixed = dropout(mixed, self.dropout_rate, mixed_key)
        hidden = self.attention_norm(hidden + mixed)
        transformed = dropout(self.feed_forward(hidden), self.dropout_rate, transformed_key)
        return self.feed_forward_norm(hidden + transformed)


class BertEmbeddings(nnx.Module):
    """Token, token type and position vectors, summed and normalised; matches BertEmbeddings."""

    def __init__(self, config: BertConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        def table(rows: int, kind: type[Embedding] = Embedding) -> Embedding:
            return kind(
                rows,
                config.embedding_width,
                standard_deviation=config.initializer_range,
                dtype=jnp.float32,  # so are their sum, and the gradients' sum over a batch
                rngs=rngs,
            )

        self.token = table(config.vocab_size)
        self.position = table(config.max_position_embeddings, PositionEmbedding)
        self.token_type = table(config.type_vocab_size)
        self.norm = _norm(config, config.embedding_width, dtype=dtype)
        self.first_position = config.first_position
        self.dropout_rate = config.hidden_dropout

    def __call__(
        self,
        input_ids: Int[Array, "B L"],
        token_type_ids: Int[Array, "B L"],
        positions: Int[Array, "*batch L"],
        *,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "B L D"]:
        """Embed the tokens; a `key` turns dropout on."""
        # Transformers' RoBERTa counts the tokens that are not pads. Padding is on the right, so its
        # positions are these, but in a text that itself holds the pad's literal (`<pad>`): there
        # transformers gives that token the pad's row and all later ones the row before ours.
        placed = self.position(self.first_position + positions)
        hidden = self.token(input_ids) + self.token_type(token_type_ids) + placed
        return dropout(self.norm(hidden), self.dropout_rate, key)


class Bert(nnx.Module):
    """The encoder; matches transformers' BertModel, without its pooler, and its kin."""

    def __init__(
        self,
        config: BertConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
        remat: Remat | None = None,
        unroll: int = 1,
    ) -> None:
        self.config = config
        self.embeddings = BertEmbeddings(config, dtype=dtype, rngs=rngs)
        widths = config.embedding_width, config.hidden_size
        initial = jax.nn.initializers.normal(config.initializer_range)
        projection = partial(Linear, kernel_init=initial, dtype=dtype, rngs=rngs)
        self.projection = projection(*widths) if widths[0] != widths[1] else None
        self.layers = LayerStack(
            lambda rngs: BertLayer(config, dtype=dtype, rngs=rngs),
            config.num_layers,
            rngs=rngs,
            # By default: what lies between the projections is cheap to recompute and costly
            # to keep. A training step of minilm-l6 (32 x 128, float32, one CPU core) took 2.65 s
            # and 1.9 GiB instead of 3.1 s and 2.9 GiB.
            remat=remat or "projections",
            unroll=unroll,
        )

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
        """Encode texts; see Backbone. The hidden states are the embeddings, then each layer's."""
        check_length(input_ids, self.config, packing)
        if token_type_ids is None:
            token_type_ids = jnp.zeros_like(input_ids)
        embeddings_key, layers_key = split_key(key, 2)
        positions = token_positions(input_ids, packing)
        embedded = self.embeddings(input_ids, token_type_ids, positions, key=embeddings_key)
        if self.projection is not None:
            embedded = self.projection(embedded)
        hidden, outputs, _ = self.layers(
            embedded,
            key=layers_key,
            visible=visible_tokens(mask, packing),
            return_hidden_states=return_hidden_states,
        )
        return (hidden, (embedded, *outputs)) if return_hidden_states else hidden


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
    lora_targets=("query", "key", "value", "output", "up", "down"),
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
