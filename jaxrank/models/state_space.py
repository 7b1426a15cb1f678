"""What Mamba and Mamba-2 share: their sizes, the stack around their mixers, and how weights start.

Both are a token table, layers that normalise, mix and add to a residual stream, and a final norm.
A mixer projects a token up, sees its neighbours through a short causal convolution, runs its
recurrence, and projects back. Random starts follow the official package (`mamba_ssm`: the mixers'
own `__init__`, and `models.mixer_seq_simple._init_weights`), since transformers' defaults differ.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx
from jax import numpy as jnp
from jax.typing import DTypeLike

from jaxrank.errors import InputError
from jaxrank.models.backbone import BackboneConfig, Encoded
from jaxrank.models.layers import Embedding, RMSNorm
from jaxrank.models.linear import Linear
from jaxrank.models.packing import Packing, text_starts
from jaxrank.models.stack import LayerStack, Remat
from jaxrank.ops.conv import causal_conv1d
from jaxrank.shapes import Array, Bool, Float, Float32, Int, Key


@dataclass(frozen=True)
class StateSpaceConfig(BackboneConfig):
    """Sizes and constants of either; the defaults are the 130m size's."""

    vocab_size: int = 50280
    """Rows of the token table; GPT-NeoX's 50,277 tokens, padded to a multiple of 8."""

    hidden_size: int = 768
    """Width of the residual stream; the default is the 130m size."""

    num_layers: int = 24
    """Mixer layers; the default is the 130m size."""

    state_size: int = 16
    """States of each inner channel (N); as published."""

    conv_width: int = 4
    """Tokens that the causal convolution sees, the current one included; as published."""

    expand: int = 2
    """Inner channels for each channel of the residual stream; as published."""

    use_bias: bool = False
    """Whether the input and output projections have biases; the published models have none."""

    use_conv_bias: bool = True
    """Whether the convolution has a bias; the published models have one."""

    residual_in_float32: bool = True
    """Whether the residual stream stays float32 under bfloat16 compute; as published."""

    norm_epsilon: float = 1e-5
    """Added to the mean square in every normalisation; as published."""

    initializer_range: float = 0.02
    """Standard deviation of the token table at the start; mamba_ssm's (transformers has 0.1)."""

    rescale_prenorm_residual: bool = True
    """Whether output projections start smaller by 1 / sqrt(num_layers), so that the residual
    stream does not grow with depth; mamba_ssm's default (transformers has False)."""

    time_step_min: float = 0.001
    """Smallest time step at the start; steps are log-uniform up to time_step_max. As published."""

    time_step_max: float = 0.1
    """Largest time step at the start; as published."""

    time_step_floor: float = 1e-4
    """Time steps at the start are raised to at least this; as published."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.time_step_min <= self.time_step_max:
            raise InputError(
                f"{type(self).__name__}: time_step_min is {self.time_step_min} and time_step_max "
                f"{self.time_step_max}; needed is 0 < time_step_min <= time_step_max"
            )

    @property
    def inner_size(self) -> int:
        """Channels inside the mixer."""
        return self.expand * self.hidden_size


class StateSpaceMixer(nnx.Module):
    """The edges of a mixer: the projection up and the convolution; subclasses do the rest.

    Args:
        up: what the projection yields a token.
        convolved: how much of that goes through the convolution.
    """

    def __init__(
        self,
        config: StateSpaceConfig,
        *,
        up: int,
        convolved: int,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        # torch.nn.Linear and Conv1d start uniform within 1 / sqrt(inputs of one output).
        conv_initial = uniform(config.conv_width**-0.5)
        self.in_proj = projection(
            config.hidden_size, up, use_bias=config.use_bias, dtype=dtype, rngs=rngs
        )
        self.conv_weight = nnx.Param(
            conv_initial(rngs.params(), (convolved, config.conv_width), jnp.float32)
        )
        self.conv_bias = (
            nnx.Param(conv_initial(rngs.params(), (convolved,), jnp.float32))
            if config.use_conv_bias
            else None
        )

    def convolve(
        self, x: Float[Array, "B L D"], *, reset: Bool[Array, "B L"] | None
    ) -> Float[Array, "B L D"]:
        """Convolve each channel over the tokens up to the current one, and apply SiLU.

        At a token where `reset` is True those before it count as zeros.
        """
        bias = None if self.conv_bias is None else self.conv_bias[...]
        convolved: Any = causal_conv1d(
            x, self.conv_weight[...], bias, activation="silu", reset=reset
        )
        return convolved


class StateSpaceLayer(nnx.Module):
    """Normalise, mix, add to the residual stream."""

    def __init__(
        self,
        config: StateSpaceConfig,
        make_mixer: Callable[..., Callable[..., Array]],
        *,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        self.norm = RMSNorm(config.hidden_size, epsilon=config.norm_epsilon, dtype=dtype)
        self.mixer = make_mixer(config, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        *,
        reset: Bool[Array, "B L"] | None = None,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "B L D"]:
        """Apply the layer; nothing is dropped inside it, so `key` is not used.

        `reset` is True at tokens that see nothing before them.
        """
        return hidden + self.mixer(self.norm(hidden), reset=reset).astype(hidden.dtype)


class StateSpaceBackbone(nnx.Module):
    """Token table, layers, final norm; a subclass says which mixer.

    Under `residual_in_float32` the residual stream is float32 whatever `dtype` is, and only what
    the mixers see is rounded to it.
    """

    make_mixer: Callable[..., Callable[..., Array]]

    def __init__(
        self,
        config: StateSpaceConfig,
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
            dtype=jnp.float32 if config.residual_in_float32 else dtype,
            rngs=rngs,
        )
        self.layers = LayerStack(
            lambda rngs: StateSpaceLayer(config, type(self).make_mixer, dtype=dtype, rngs=rngs),
            config.num_layers,
            rngs=rngs,
            remat=remat or default_remat(),
            unroll=unroll,
        )
        self.final_norm = RMSNorm(config.hidden_size, epsilon=config.norm_epsilon, dtype=dtype)

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
        """Encode texts; see Backbone. Token types are not used.

        Nor is the mask: padding stands on the right, where a causal model does not look.

        The hidden states are each layer's residual stream, then the normalised last one; the
        embeddings are not among them.
        """
        del mask, token_type_ids
        stream: Any = self.layers(
            self.embedding(input_ids),
            key=key,
            reset=text_starts(packing),
            return_hidden_states=return_hidden_states,
        )
        if not return_hidden_states:
            return self.final_norm(stream)
        last, outputs = stream
        hidden = self.final_norm(last)
        return hidden, (*outputs, hidden)


def default_remat() -> Remat:
    """What layers keep where nobody chose.

    An accelerator has less memory than a host: 64 x 512 tokens of the 370m sizes keep 61 to 66 GiB
    under "none", 21 to 33 under "projections", and stacking what the layers keep moves about as
    many bytes as computing it again (`scripts/h200_steps.py`, bfloat16). Beside projections Mamba-2
    keeps what its recurrence yields. Mamba does not: its scan runs again for the states that its
    gradient starts from, which are four times as large. A CPU computes slowly and keeps everything.
    """
    return "none" if jax.default_backend() == "cpu" else "projections"


def uniform(bound: float) -> Callable[..., Array]:
    """An initialiser: uniform within +-bound."""

    def initial(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return initial


def projection(
    inputs: int, outputs: int, *, use_bias: bool, dtype: DTypeLike, rngs: nnx.Rngs, scale: float = 1
) -> Linear:
    """A linear layer that starts as torch.nn.Linear does, times `scale`, and with zero biases."""
    initial = uniform(inputs**-0.5 * scale)
    return Linear(inputs, outputs, use_bias=use_bias, kernel_init=initial, dtype=dtype, rngs=rngs)


def projection_back(config: StateSpaceConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> Linear:
    """A mixer's last layer, from its inner channels to the residual stream."""
    return projection(
        config.inner_size,
        config.hidden_size,
        use_bias=config.use_bias,
        scale=config.num_layers**-0.5 if config.rescale_prenorm_residual else 1,
        dtype=dtype,
        rngs=rngs,
    )


def time_step_bias(
    config: StateSpaceConfig, count: int, key: Key[Array, ""]
) -> Float32[Array, " count"]:
    """Biases whose softplus is log-uniform in [time_step_min, time_step_max]."""
    low, high = math.log(config.time_step_min), math.log(config.time_step_max)
    steps = jnp.exp(jax.random.uniform(key, (count,), jnp.float32, low, high))
    steps = jnp.maximum(steps, config.time_step_floor)
    return steps + jnp.log(-jnp.expm1(-steps))  # the inverse of softplus
