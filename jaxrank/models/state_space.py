"""What Mamba and Mamba-2 share: the stack around their mixers, and how weights start.

Both are a token table, layers that normalise, mix and add to a residual stream, and a final norm.
A mixer projects a token up, sees its neighbours through a short causal convolution, runs its
recurrence, and projects back. Random starts follow the official package (`mamba_ssm`: the mixers'
own `__init__`, and `models.mixer_seq_simple._init_weights`), since transformers' defaults differ.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax import numpy as jnp
from jax.typing import DTypeLike

from jaxrank.models.backbone import Encoded
from jaxrank.models.layer_state import LayerState, last_inputs
from jaxrank.models.layers import Embedding, RMSNorm
from jaxrank.models.linear import Linear
from jaxrank.models.packing import Packing, text_starts
from jaxrank.models.stack import LayerStack, Remat
from jaxrank.models.state_space_config import StateSpaceConfig
from jaxrank.models.states import State, StateArray, check_state
from jaxrank.ops.conv import causal_conv1d
from jaxrank.shapes import Array, Bool, Float, Float32, Int, Key

Mixed = tuple[Float[Array, "B L D"], LayerState | None]
"""What a mixer yields: the tokens, and the state after each text where it was asked for."""
MakeMixer = Callable[..., Callable[..., Mixed]]


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
        self.tail = config.conv_width - 1
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
        self,
        x: Float[Array, "B L D"],
        *,
        reset: Bool[Array, "B L"] | None,
        before: Float[Array, "B tail D"] | None,
    ) -> Float[Array, "B L D"]:
        """Convolve each channel over the tokens up to the current one, and apply SiLU.

        At a token where `reset` is True those before it count as zeros. `before` are the inputs
        before the first one; None: zeros.
        """
        bias = None if self.conv_bias is None else self.conv_bias[...]
        convolved: Any = causal_conv1d(
            x,
            self.conv_weight[...],
            bias,
            activation="silu",
            initial_state=before,
            reset=reset,
        )
        return convolved

    def final_state(
        self,
        x: Float[Array, "B L D"],
        before: Float[Array, "B tail D"] | None,
        recurrence: Float32[Array, "B ..."],
        mask: Bool[Array, "B L"] | None,
    ) -> LayerState | None:
        """The state after the last token that `mask` calls real; None without a mask.

        Args:
            x, before: the convolution's inputs, as `convolve` was given them.
            recurrence: its state after that token.
            mask: True for real tokens, which stand first.
        """
        if mask is None:
            return None
        tail = last_inputs(x, before=before, mask=mask, tail=self.tail)
        return {"convolution": tail, "recurrence": recurrence}


class StateSpaceLayer(nnx.Module):
    """Normalise, mix, add to the residual stream."""

    def __init__(
        self,
        config: StateSpaceConfig,
        make_mixer: MakeMixer,
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
        initial_state: LayerState | None = None,
        final_mask: Bool[Array, "B L"] | None = None,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "B L D"] | tuple[Float[Array, "B L D"], LayerState]:
        """Apply the layer; nothing is dropped inside it, so `key` is not used.

        Args:
            hidden: the residual stream.
            reset: True at tokens that see nothing before them.
            initial_state: of the texts that `hidden` goes on with; None: it begins them.
            final_mask: True for real tokens, which stand first. With it the layer also returns the
                state after each text's last one.
            key: see above.
        """
        mixed, final_state = self.mixer(
            self.norm(hidden), reset=reset, initial_state=initial_state, final_mask=final_mask
        )
        hidden = hidden + mixed.astype(hidden.dtype)
        return hidden if final_state is None else (hidden, final_state)


class StateSpaceBackbone(nnx.Module):
    """Token table, layers, final norm; a subclass says which mixer, and its state.

    Under `residual_in_float32` the residual stream is float32 whatever `dtype` is, and only what
    the mixers see is rounded to it.
    """

    make_mixer: MakeMixer

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

    @staticmethod
    def state_arrays(config: Any) -> tuple[StateArray, ...]:
        """What the state of a text is made of."""
        raise NotImplementedError

    def encode(
        self,
        input_ids: Int[Array, "B L"],
        *,
        mask: Bool[Array, "B L"],
        token_type_ids: Int[Array, "B L"] | None = None,
        packing: Packing | None = None,
        key: Key[Array, ""] | None = None,
        return_hidden_states: bool = False,
        initial_state: State | None = None,
        return_final_state: bool = False,
    ) -> Encoded:
        """Encode texts; see Backbone. Token types are not used.

        Nor is the mask but for the final state: padding stands on the right, where a causal model
        does not look.

        The hidden states are each layer's residual stream, then the normalised last one; the
        embeddings are not among them.

        Raises:
            ValueError: the state is not one of this model and as many texts; rows are packed where
                a state comes in or is asked for.
        """
        del token_type_ids
        if packing is not None and (initial_state is not None or return_final_state):
            raise ValueError("packing: came with a state; a state needs a row for each text")
        if initial_state is not None:
            needed = self.state_arrays(self.config)
            check_state(initial_state, needed, rows=input_ids.shape[0])
        last, outputs, arrays = self.layers(
            self.embedding(input_ids),
            key=key,
            per_layer={"initial_state": None if initial_state is None else initial_state.arrays},
            reset=text_starts(packing),
            final_mask=mask if return_final_state else None,
            return_hidden_states=return_hidden_states,
            return_per_layer=return_final_state,
        )
        hidden = self.final_norm(last)
        vectors = (hidden, (*outputs, hidden)) if return_hidden_states else hidden
        if arrays is None:
            return vectors
        lengths = jnp.sum(mask, axis=1, dtype=jnp.int32)
        if initial_state is not None:
            lengths = lengths + initial_state.lengths
        return vectors, State(arrays, lengths)


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
