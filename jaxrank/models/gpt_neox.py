"""GPT-NeoX: a causal decoder whose attention and feed-forward parts stand side by side.

Black et al., 2022, arXiv 2204.06745; the Pythia models (Biderman et al., 2023, arXiv 2304.01373)
are of this kind. Matches transformers' GPTNeoXModel, and with the classification head
GPTNeoXForSequenceClassification with one label: exact GELU, rotary positions on the first channels
of each head, one projection to queries, keys and values, normalisation before each part.
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
    split_key,
)
from jaxrank.models.packing import Visible
from jaxrank.models.prefix_cache import KeysAndValues, key_value_arrays
from jaxrank.models.stack import Remat
from jaxrank.models.states import StateArray
from jaxrank.ops.dropout import dropout
from jaxrank.ops.rotary import Rotary, make_rotary, rotary_frequencies
from jaxrank.shapes import Array, Float, Int, Key


@dataclass(frozen=True)
class GptNeoXConfig(BackboneConfig):
    """Sizes and constants of a GPT-NeoX decoder; the defaults are pythia-160m."""

    vocab_size: int = 50304
    """Rows of the token table; GPT-NeoX's 50,277 tokens, padded to a multiple of 128."""

    hidden_size: int = 768
    """Width of the residual stream; the default is the 160m size."""

    num_layers: int = 12
    """Decoder layers; the default is the 160m size."""

    num_heads: int = 12
    """Attention heads, each hidden_size / num_heads wide."""

    intermediate_size: int = 3072
    """Width inside the feed-forward part; the published sizes take 4 x hidden_size."""

    max_position_embeddings: int = 2048
    """Longest input, in tokens. Pythia was trained with 2,048."""

    rotary_fraction: float = 0.25
    """Part of a head's channels that turn with the position; as published."""

    rotary_base: float = 10000.0
    """Ratio of the fastest to the slowest of these turns; as published."""

    has_parallel_residual: bool = True
    """Whether both parts of a layer read the layer's input; False: the feed-forward part reads
    what attention has added to. True in all Pythia models."""

    hidden_dropout: float = 0.0
    """Rate after the embeddings and before each residual sum, in training only; as published."""

    attention_dropout: float = 0.0
    """Rate on the attention probabilities, in training only; as published."""

    layer_norm_epsilon: float = 1e-5
    """Added to the variance in every normalisation; as published."""

    initializer_range: float = 0.02
    """Standard deviation of random weights at the start; as published."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden_size % self.num_heads:
            raise InputError(
                f"GptNeoXConfig: hidden_size is {self.hidden_size}; it must be a multiple of "
                f"num_heads ({self.num_heads})"
            )
        head_size = self.hidden_size // self.num_heads
        if not 0 < self.rotary_channels <= head_size or self.rotary_channels % 2:
            raise InputError(
                f"GptNeoXConfig: rotary_fraction is {self.rotary_fraction}; of the {head_size} "
                "channels of a head it must leave an even number, at least two"
            )

    @property
    def max_length(self) -> int:
        """Longest input in tokens: what the model was trained with."""
        return self.max_position_embeddings

    @property
    def rotary_channels(self) -> int:
        """Channels of each head that turn."""
        return int(self.hidden_size // self.num_heads * self.rotary_fraction)


class GptNeoXLayer(nnx.Module):
    """Attention and feed-forward, both added to the residual stream; matches GPTNeoXLayer."""

    def __init__(self, config: GptNeoXConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        initial = jax.nn.initializers.normal(config.initializer_range)
        self.attention_norm = _norm(config, dtype=dtype)
        self.attention = CausalAttention(
            config.hidden_size,
            num_heads=config.num_heads,
            fused="heads",
            dropout_rate=config.attention_dropout,
            initial=initial,
            dtype=dtype,
            rngs=rngs,
        )
        self.feed_forward_norm = _norm(config, dtype=dtype)
        self.feed_forward = FeedForward(
            config.hidden_size,
            config.intermediate_size,
            activation="gelu",
            initial=initial,
            dtype=dtype,
            rngs=rngs,
        )
        self.has_parallel_residual = config.has_parallel_residual
        self.dropout_rate = config.hidden_dropout

    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        *,
        visible: Visible,
        rotary: Rotary,
        prefix: KeysAndValues | None = None,
        return_state: bool = False,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "B L D"] | tuple[Float[Array, "B L D"], KeysAndValues]:
        """Apply the layer; see CausalDecoder. A `key` turns dropout on."""
        probability_key, mixed_key, transformed_key = split_key(key, 3)
        mixed, own = self.attention.go_on(
            self.attention_norm(hidden),
            visible=visible,
            prefix=prefix,
            rotary=rotary,
            key=probability_key,
        )
        mixed_sum = hidden + dropout(mixed, self.dropout_rate, mixed_key)
        read = hidden if self.has_parallel_residual else mixed_sum
        transformed = self.feed_forward(self.feed_forward_norm(read))
        hidden = mixed_sum + dropout(transformed, self.dropout_rate, transformed_key)
        return (hidden, own) if return_state else hidden


class GptNeoX(CausalDecoder):
    """The decoder; matches transformers' GPTNeoXModel."""

    def __init__(
        self,
        config: GptNeoXConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
        remat: Remat | None = None,
        unroll: int = 1,
    ) -> None:
        self.embedding = Embedding(
            config.vocab_size,
            config.hidden_size,
            standard_deviation=config.initializer_range,
            dtype=dtype,
            rngs=rngs,
        )
        super().__init__(
            config,
            lambda rngs: GptNeoXLayer(config, dtype=dtype, rngs=rngs),
            rngs=rngs,
            remat=remat,
            unroll=unroll,
        )
        self.final_norm = _norm(config, dtype=dtype)

    @staticmethod
    def state_arrays(config: GptNeoXConfig) -> tuple[StateArray, ...]:
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
        """Token vectors; positions enter in the layers."""
        del positions
        return dropout(self.embedding(input_ids), self.config.hidden_dropout, key)

    def context(self, positions: Int[Array, "*batch L"]) -> dict[str, Rotary]:
        """The turns of every position."""
        frequencies = rotary_frequencies(self.config.rotary_channels, base=self.config.rotary_base)
        return {"rotary": make_rotary(positions, jnp.asarray(frequencies))}

    def finish(self, hidden: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        """Normalise."""
        return self.final_norm(hidden)


def _norm(config: GptNeoXConfig, *, dtype: DTypeLike) -> LayerNorm:
    return LayerNorm(config.hidden_size, epsilon=config.layer_norm_epsilon, dtype=dtype)


SMALLEST = GptNeoXConfig()
PRESETS = {
    "gpt-neox-tiny": replace(
        SMALLEST, hidden_size=64, num_layers=2, num_heads=2, intermediate_size=128
    ),
    "pythia-160m": SMALLEST,
    "pythia-410m": replace(
        SMALLEST, hidden_size=1024, num_layers=24, num_heads=16, intermediate_size=4096
    ),
    "pythia-1b": replace(
        SMALLEST, hidden_size=2048, num_layers=16, num_heads=8, intermediate_size=8192
    ),
}

FAMILY = Family(
    name="gpt_neox",
    config_class=GptNeoXConfig,
    backbone=GptNeoX,
    pooling="last",
    wording="decoder",
    classification_head=classification_head,
    presets=PRESETS,
    lora_targets=("embedding", "qkv", "output", "up", "down"),
    state_arrays=GptNeoX.state_arrays,
)
