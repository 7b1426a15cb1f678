"""Llama: a causal decoder with grouped-query attention, RMS normalisation and a gated feed-forward.

Touvron et al., 2023, arXiv 2302.13971, and Grattafiori et al., 2024, arXiv 2407.21783 (Llama 3).
Matches transformers' LlamaModel, and with the classification head LlamaForSequenceClassification
with one label: SwiGLU, rotary positions on all channels (stretched as in Llama 3.1 where the
configuration says so), no biases, normalisation before each part.
"""

from dataclasses import dataclass, replace
from typing import Literal

import jax
import numpy as np
from flax import nnx
from jax import numpy as jnp
from jax.typing import DTypeLike

from jaxrank.errors import InputError
from jaxrank.models.backbone import BackboneConfig, Family
from jaxrank.models.causal import CausalAttention, CausalDecoder, classification_head
from jaxrank.models.layers import Embedding, GatedFeedForward, RMSNorm
from jaxrank.models.packing import Visible
from jaxrank.models.prefix_cache import KeysAndValues, key_value_arrays
from jaxrank.models.stack import Remat
from jaxrank.models.states import StateArray
from jaxrank.ops.rotary import Rotary, llama3_frequencies, make_rotary, rotary_frequencies
from jaxrank.shapes import Array, Float, Float32, Int, Key


@dataclass(frozen=True)
class LlamaConfig(BackboneConfig):
    """Sizes and constants of a Llama decoder.

    The default sizes are Llama-3.2-1B's; the other defaults are what a published configuration
    means that leaves them out, which Llama 3's do not.
    """

    vocab_size: int = 128256
    """Rows of the token table; the default is Llama 3's vocabulary."""

    hidden_size: int = 2048
    """Width of the residual stream; the default is the 1B size."""

    num_layers: int = 16
    """Decoder layers; the default is the 1B size."""

    num_heads: int = 32
    """Attention heads of the queries; the default is the 1B size."""

    num_key_heads: int | None = None
    """Heads of keys and values, each shared by num_heads / num_key_heads query heads; None: as
    many as num_heads. Llama 3 has 8."""

    head_size: int | None = None
    """Width of a head; None: hidden_size / num_heads."""

    intermediate_size: int = 8192
    """Width inside the feed-forward part; the default is the 1B size."""

    max_position_embeddings: int = 2048
    """Longest input, in tokens; Llama 3.2 was trained with 131,072."""

    rotary_base: float = 10000.0
    """Ratio of the fastest to the slowest turn of a head's channels; Llama 3 has 500,000."""

    rotary_scaling: Literal["default", "llama3"] = "default"
    """Whether slow turns are stretched for long contexts, by the four values below."""

    rotary_factor: float | None = None
    """How much slower the slowest turns become; 32 in Llama 3.2."""

    rotary_low_frequency_factor: float | None = None
    """Turns with fewer rounds than this in rotary_original_length slow down in full; 1 in Llama
    3.2."""

    rotary_high_frequency_factor: float | None = None
    """Turns with more rounds than this in rotary_original_length stay as they are; 4 in Llama
    3.2."""

    rotary_original_length: int | None = None
    """Longest input before the stretch, in tokens; 8,192 in Llama 3.2."""

    attention_dropout: float = 0.0
    """Rate on the attention probabilities, in training only; as published."""

    norm_epsilon: float = 1e-6
    """Added to the mean square in every normalisation; 1e-5 in Llama 3."""

    initializer_range: float = 0.02
    """Standard deviation of random weights at the start; as published."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head_size is None and self.hidden_size % self.num_heads:
            raise InputError(
                f"LlamaConfig: hidden_size is {self.hidden_size}; without head_size it must be a "
                f"multiple of num_heads ({self.num_heads})"
            )
        if self.num_heads % (self.num_key_heads or self.num_heads):
            raise InputError(
                f"LlamaConfig: num_key_heads is {self.num_key_heads}; it must divide num_heads "
                f"({self.num_heads})"
            )
        if self.head_width % 2:
            raise InputError(f"LlamaConfig: heads are {self.head_width} wide; it must be even")
        if self.rotary_scaling == "llama3" and None in self._stretch().values():
            names = ", ".join(f"rotary_{name}" for name in self._stretch())
            raise InputError(f"LlamaConfig: rotary_scaling is 'llama3', which needs {names}")
        low, high = self.rotary_low_frequency_factor, self.rotary_high_frequency_factor
        if low is not None and high is not None and low >= high:
            raise InputError(
                f"LlamaConfig: rotary_low_frequency_factor is {low}; it must be below "
                f"rotary_high_frequency_factor ({high})"
            )

    @property
    def max_length(self) -> int:
        """Longest input in tokens: what the model was trained with."""
        return self.max_position_embeddings

    @property
    def head_width(self) -> int:
        """Width of a head, resolved."""
        return self.head_size or self.hidden_size // self.num_heads

    @property
    def frequencies(self) -> Float32[np.ndarray, " angles"]:
        """Radians a position for each pair of channels."""
        plain = rotary_frequencies(self.head_width, base=self.rotary_base)
        if self.rotary_scaling == "default":
            return plain
        return llama3_frequencies(plain, **self._stretch())

    def _stretch(self) -> dict:
        return {
            "factor": self.rotary_factor,
            "low_frequency_factor": self.rotary_low_frequency_factor,
            "high_frequency_factor": self.rotary_high_frequency_factor,
            "original_length": self.rotary_original_length,
        }


class LlamaLayer(nnx.Module):
    """Attention and gated feed-forward, each after a norm; matches LlamaDecoderLayer."""

    def __init__(self, config: LlamaConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        initial = jax.nn.initializers.normal(config.initializer_range)
        self.attention_norm = _norm(config, dtype=dtype)
        self.attention = CausalAttention(
            config.hidden_size,
            num_heads=config.num_heads,
            num_key_heads=config.num_key_heads,
            head_size=config.head_size,
            use_bias=False,
            dropout_rate=config.attention_dropout,
            initial=initial,
            dtype=dtype,
            rngs=rngs,
        )
        self.feed_forward_norm = _norm(config, dtype=dtype)
        self.feed_forward = GatedFeedForward(
            config.hidden_size,
            config.intermediate_size,
            activation="silu",
            initial=initial,
            dtype=dtype,
            rngs=rngs,
        )

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
        mixed, own = self.attention.go_on(
            self.attention_norm(hidden), visible=visible, prefix=prefix, rotary=rotary, key=key
        )
        hidden = hidden + mixed
        hidden = hidden + self.feed_forward(self.feed_forward_norm(hidden))
        return (hidden, own) if return_state else hidden


class Llama(CausalDecoder):
    """The decoder; matches transformers' LlamaModel."""

    def __init__(
        self,
        config: LlamaConfig,
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
            lambda rngs: LlamaLayer(config, dtype=dtype, rngs=rngs),
            rngs=rngs,
            remat=remat,
            unroll=unroll,
        )
        self.final_norm = _norm(config, dtype=dtype)

    @staticmethod
    def state_arrays(config: LlamaConfig) -> tuple[StateArray, ...]:
        """Keys and values of the heads that groups of query heads share."""
        key_heads = config.num_key_heads or config.num_heads
        return key_value_arrays(config.num_layers, key_heads, config.head_width)

    def embed(
        self,
        input_ids: Int[Array, "B L"],
        positions: Int[Array, "*batch L"],
        *,
        key: Key[Array, ""] | None,
    ) -> Float[Array, "B L D"]:
        """Token vectors; positions enter in the layers, and nothing is dropped here."""
        del positions, key
        return self.embedding(input_ids)

    def context(self, positions: Int[Array, "*batch L"]) -> dict[str, Rotary]:
        """The turns of every position."""
        return {"rotary": make_rotary(positions, jnp.asarray(self.config.frequencies))}

    def finish(self, hidden: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        """Normalise."""
        return self.final_norm(hidden)


def _norm(config: LlamaConfig, *, dtype: DTypeLike) -> RMSNorm:
    return RMSNorm(config.hidden_size, epsilon=config.norm_epsilon, dtype=dtype)


LLAMA_3_2 = LlamaConfig(
    num_key_heads=8,
    max_position_embeddings=131072,
    rotary_base=500000.0,
    rotary_scaling="llama3",
    rotary_factor=32.0,
    rotary_low_frequency_factor=1.0,
    rotary_high_frequency_factor=4.0,
    rotary_original_length=8192,
    norm_epsilon=1e-5,
)
PRESETS = {
    "llama-tiny": replace(
        LLAMA_3_2,
        vocab_size=1024,
        hidden_size=64,
        num_layers=2,
        num_heads=4,
        num_key_heads=2,
        intermediate_size=128,
    ),
    "llama-3.2-1b": LLAMA_3_2,
}

FAMILY = Family(
    name="llama",
    config_class=LlamaConfig,
    backbone=Llama,
    pooling="last",
    wording="decoder",
    classification_head=classification_head,
    presets=PRESETS,
    lora_targets=("query", "key", "value", "output", "gate", "up", "down"),
    state_arrays=Llama.state_arrays,
)
