"""Mamba: a causal stack of selective state-space mixers.

Gu and Dao, 2023, arXiv 2312.00752. Matches transformers' MambaModel; random starts follow the
official package instead (`mamba_ssm.modules.mamba_simple.Mamba.__init__` and
`mamba_ssm.models.mixer_seq_simple._init_weights`), since transformers' defaults differ from it.

Letters of the paper: u the scan's input (here after convolution and SiLU), delta its time steps,
A the states' decay rates, B and C what writes to and reads from them, D the skip, z the gate.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
from flax import nnx
from jax import numpy as jnp
from jax.typing import DTypeLike

from jaxrank.errors import InputError
from jaxrank.models.backbone import Family, check_config
from jaxrank.models.layers import Embedding, RMSNorm
from jaxrank.models.stack import LayerStack
from jaxrank.ops.conv import causal_conv1d
from jaxrank.ops.selective_scan import selective_scan
from jaxrank.shapes import Array, Bool, Float, Float32, Int, Key


@dataclass(frozen=True)
class MambaConfig:
    """Sizes and constants of a Mamba backbone; the defaults are mamba-130m."""

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

    time_step_rank: int | None = None
    """Rank of the projection that makes the time steps; None: hidden_size / 16, rounded up."""

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
        check_config(self)
        if not 0 < self.time_step_min <= self.time_step_max:
            raise InputError(
                f"MambaConfig: time_step_min is {self.time_step_min} and time_step_max "
                f"{self.time_step_max}; needed is 0 < time_step_min <= time_step_max"
            )

    @property
    def inner_size(self) -> int:
        """Channels inside the mixer."""
        return self.expand * self.hidden_size

    @property
    def rank(self) -> int:
        """Rank of the time steps' projection, resolved."""
        return self.time_step_rank or math.ceil(self.hidden_size / 16)


class TimeStepProjection(nnx.Module):
    """From low rank to one time step a channel; its bias enters inside the scan, in float32."""

    def __init__(self, config: MambaConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        rank, inner = config.rank, config.inner_size
        self.kernel = nnx.Param(_uniform(rank**-0.5)(rngs.params(), (rank, inner), jnp.float32))
        self.bias = nnx.Param(_time_step_bias(config, rngs.params()))
        self.dtype = dtype

    def __call__(self, low_rank: Float[Array, "B L R"]) -> Float[Array, "B L D"]:
        """Project, without the bias."""
        return low_rank @ self.kernel[...].astype(self.dtype)


class MambaMixer(nnx.Module):
    """Convolution, selective scan and gate; matches transformers' MambaMixer.

    Section 3.4 and Figure 3 of the paper. All that a token takes from earlier ones comes in
    through `causal_conv1d` and `selective_scan`.
    """

    def __init__(self, config: MambaConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        inner, rank, states = config.inner_size, config.rank, config.state_size

        def linear(inputs: int, outputs: int, *, bound: float, use_bias: bool) -> nnx.Linear:
            initial = _uniform(bound)
            return nnx.Linear(
                inputs, outputs, use_bias=use_bias, kernel_init=initial, dtype=dtype, rngs=rngs
            )

        # torch.nn.Linear and Conv1d start uniform within 1 / sqrt(inputs of one output).
        width_bound, inner_bound = config.hidden_size**-0.5, inner**-0.5
        conv_bound = config.conv_width**-0.5
        output_scale = config.num_layers**-0.5 if config.rescale_prenorm_residual else 1.0
        self.in_proj = linear(
            config.hidden_size, 2 * inner, bound=width_bound, use_bias=config.use_bias
        )
        self.conv_weight = nnx.Param(
            _uniform(conv_bound)(rngs.params(), (inner, config.conv_width), jnp.float32)
        )
        self.conv_bias = (
            nnx.Param(_uniform(conv_bound)(rngs.params(), (inner,), jnp.float32))
            if config.use_conv_bias
            else None
        )
        self.x_proj = linear(inner, rank + 2 * states, bound=inner_bound, use_bias=False)
        self.dt_proj = TimeStepProjection(config, dtype=dtype, rngs=rngs)
        self.A_log = nnx.Param(
            jnp.broadcast_to(jnp.log(jnp.arange(1.0, states + 1))[None, :], (inner, states))
        )
        self.D = nnx.Param(jnp.ones((inner,), jnp.float32))
        self.out_proj = linear(
            inner, config.hidden_size, bound=inner_bound * output_scale, use_bias=config.use_bias
        )
        self.sections = (rank, rank + states)

    def __call__(self, hidden: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        """Mix each token with those before it."""
        x, z = jnp.split(self.in_proj(hidden), 2, axis=-1)
        conv_bias = None if self.conv_bias is None else self.conv_bias[...]
        u: Any = causal_conv1d(x, self.conv_weight[...], conv_bias, activation="silu")
        low_rank, B, C = jnp.split(self.x_proj(u), self.sections, axis=-1)
        y: Any = selective_scan(
            u,
            self.dt_proj(low_rank),
            -jnp.exp(self.A_log[...]),
            B,
            C,
            D=self.D[...],
            z=z,
            delta_bias=self.dt_proj.bias[...],
            softplus=True,
        )
        return self.out_proj(y)


class MambaLayer(nnx.Module):
    """Normalise, mix, add to the residual stream; matches transformers' MambaBlock."""

    def __init__(self, config: MambaConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.norm = RMSNorm(config.hidden_size, epsilon=config.norm_epsilon, dtype=dtype)
        self.mixer = MambaMixer(config, dtype=dtype, rngs=rngs)

    def __call__(
        self, hidden: Float[Array, "B L D"], *, key: Key[Array, ""] | None = None
    ) -> Float[Array, "B L D"]:
        """Apply the layer; nothing is dropped inside it, so `key` is not used."""
        return hidden + self.mixer(self.norm(hidden)).astype(hidden.dtype)


class Mamba(nnx.Module):
    """The backbone; matches transformers' MambaModel.

    Under `residual_in_float32` the residual stream is float32 whatever `dtype` is, and only what
    the mixers see is rounded to it.
    """

    def __init__(
        self,
        config: MambaConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
        remat: bool = False,
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
            lambda rngs: MambaLayer(config, dtype=dtype, rngs=rngs),
            config.num_layers,
            rngs=rngs,
            keep="inputs" if remat else "everything",
            unroll=unroll,
        )
        self.final_norm = RMSNorm(config.hidden_size, epsilon=config.norm_epsilon, dtype=dtype)

    def encode(
        self,
        input_ids: Int[Array, "B L"],
        *,
        mask: Bool[Array, "B L"],
        token_type_ids: Int[Array, "B L"] | None = None,
        key: Key[Array, ""] | None = None,
        return_hidden_states: bool = False,
    ) -> Float[Array, "B L D"] | tuple[Float[Array, "B L D"], Float[Array, "states B L D"]]:
        """Encode texts; see Backbone. Token types are not used.

        Nor is the mask: padding stands on the right, where a causal model does not look.

        The hidden states are each layer's residual stream, then the normalised last one; the
        embeddings are not among them.
        """
        del mask, token_type_ids
        stream: Any = self.layers(
            self.embedding(input_ids),
            key=key,
            return_hidden_states=return_hidden_states,
        )
        if not return_hidden_states:
            return self.final_norm(stream)
        last, outputs = stream
        hidden = self.final_norm(last)
        return hidden, jnp.concatenate([outputs, hidden[None].astype(outputs.dtype)])


def _uniform(bound: float) -> Callable[..., Array]:
    """Uniform within +-bound."""

    def initial(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return initial


def _time_step_bias(config: MambaConfig, key: Key[Array, ""]) -> Float32[Array, " D"]:
    """Biases whose softplus is log-uniform in [time_step_min, time_step_max]."""
    low, high = math.log(config.time_step_min), math.log(config.time_step_max)
    steps = jnp.exp(jax.random.uniform(key, (config.inner_size,), jnp.float32, low, high))
    steps = jnp.maximum(steps, config.time_step_floor)
    return steps + jnp.log(-jnp.expm1(-steps))  # the inverse of softplus


SMALLEST = MambaConfig()
PRESETS = {
    "mamba-130m": SMALLEST,
    "mamba-370m": replace(SMALLEST, hidden_size=1024, num_layers=48),
    "mamba-790m": replace(SMALLEST, hidden_size=1536, num_layers=48),
    "mamba-1.4b": replace(SMALLEST, hidden_size=2048, num_layers=48),
}

FAMILY = Family(
    name="mamba",
    config_class=MambaConfig,
    backbone=Mamba,
    pooling="last",
    classification_head=None,
    presets=PRESETS,
)
