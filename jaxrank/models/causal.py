"""CausalDecoder: what the transformer decoders share around their layers.

Embed the tokens, apply layers in which a token sees itself and those before it, finish. So what a
token takes from those before it are their keys and values in each layer, and with these a text can
be gone on with.
"""

from collections.abc import Callable
from typing import Any

from flax import nnx
from jax import numpy as jnp

from jaxrank.models.backbone import BackboneConfig, Encoded, check_length
from jaxrank.models.heads import LinearHead
from jaxrank.models.layers import MultiHeadAttention, split_key
from jaxrank.models.packing import Packing, Visible, token_positions, visible_tokens
from jaxrank.models.prefix_cache import (
    KeysAndValues,
    check_prefix,
    joined_state,
    tokens_to_see,
)
from jaxrank.models.stack import LayerStack, Remat
from jaxrank.models.states import State, StateArray
from jaxrank.ops.rotary import Rotary, apply_rotary
from jaxrank.shapes import Array, Bool, Float, Int, Key


def classification_head(
    config: BackboneConfig, *, dropout_rate: float, rngs: nnx.Rngs
) -> LinearHead:
    """The head of transformers' classifiers on decoders, which score the last token.

    They have no dropout there, so the rate is not used.
    """
    del dropout_rate
    return LinearHead(config, pooling="last", dropout_rate=0.0, use_bias=False, rngs=rngs)


class CausalAttention(MultiHeadAttention):
    """Attention of tokens to themselves and those before, also to those that were read before."""

    def go_on(
        self,
        hidden: Float[Array, "B L D"],
        *,
        visible: Visible,
        prefix: KeysAndValues | None = None,
        rotary: Rotary | None = None,
        key: Key[Array, ""] | None = None,
    ) -> tuple[Float[Array, "B L D"], KeysAndValues]:
        """Mix behind what was read, and also yield the keys, turned, and values of `hidden`.

        Args:
            hidden: the tokens.
            visible: which of the tokens of `prefix` and, behind them, of `hidden` a token sees.
            prefix: keys and values of tokens that stand before, in any float dtype.
            rotary: turns queries and keys.
            key: turns dropout on.
        """
        query, keys, values = self.project(hidden, hidden)
        if rotary is not None:
            query, keys = apply_rotary(query, rotary), apply_rotary(keys, rotary)
        own = KeysAndValues(keys, values)
        if prefix is not None:
            keys, values = (
                jnp.concatenate([before.astype(new.dtype), new], axis=1)
                for before, new in zip(prefix, own, strict=True)
            )
        mixed = self.mix(
            query,
            keys,
            values,
            key,
            **visible._asdict(),
            is_causal=True,
            query_offset=keys.shape[1] - query.shape[1],
        )
        return mixed, own


class CausalDecoder(nnx.Module):
    """A backbone but for what an architecture fills in: `embed`, `context`, `finish` and its state.

    Of the mask only the final state's lengths are taken: padding stands on the right, where no real
    token looks.

    Args:
        config: the architecture's.
        make_layer: builds one layer, called as `layer(hidden, visible=..., prefix=...,
            return_state=..., key=..., **context)`. It goes on from the KeysAndValues `prefix`, or
            begins where that is None; with `return_state` it returns a pair, the second part being
            its own.
        rngs, remat, unroll: as those of RerankerModule.
    """

    config: Any

    def __init__(
        self,
        config: BackboneConfig,
        make_layer: Callable[[nnx.Rngs], nnx.Module],
        *,
        rngs: nnx.Rngs,
        remat: Remat | None,
        unroll: int,
    ) -> None:
        self.config = config
        self.layers = LayerStack(
            make_layer,
            config.num_layers,
            rngs=rngs,
            remat=remat or "projections",
            unroll=unroll,
        )

    @staticmethod
    def state_arrays(config: Any) -> tuple[StateArray, ...]:
        """What the state of a text is made of."""
        raise NotImplementedError

    def embed(
        self,
        input_ids: Int[Array, "B L"],
        positions: Int[Array, "*batch L"],
        *,
        key: Key[Array, ""] | None,
    ) -> Float[Array, "B L D"]:
        """What the first layer is given."""
        raise NotImplementedError

    def context(self, positions: Int[Array, "*batch L"]) -> dict[str, Any]:
        """What every layer is given beside the hidden vectors, for tokens at those places."""
        del positions
        return {}

    def finish(self, hidden: Float[Array, "B L D"]) -> Float[Array, "B L E"]:
        """From the last layer's output to what `encode` yields."""
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
        """Encode texts; see Backbone. Token types are not used, nor the mask but for final lengths.

        The hidden states are the embeddings, the output of every layer but the last, and what
        `finish` makes of that one.

        Final states have room for all tokens that came, padding included.

        Raises:
            ValueError: `input_ids`, with those of `initial_state` and all padding, are longer than
                the model has positions; the state is not one of this model and as many texts; rows
                are packed where a state comes in or is asked for.
        """
        del token_type_ids
        check_length(input_ids, self.config, packing)
        if packing is not None and (initial_state is not None or return_final_state):
            raise ValueError("packing: came with a state; a state needs a row for each text")
        positions, visible = token_positions(input_ids, packing), visible_tokens(None, packing)
        prefix = None
        if initial_state is not None:
            arrays = self.state_arrays(self.config)
            check_prefix(initial_state, arrays, input_ids, self.config.max_length)
            positions = initial_state.lengths[:, None] + positions[None, :]
            visible = Visible(mask=tokens_to_see(initial_state, input_ids.shape[1]))
            prefix = KeysAndValues(**initial_state.arrays)
        embeddings_key, layers_key = split_key(key, 2)
        embedded = self.embed(input_ids, positions, key=embeddings_key)
        last, outputs, own = self.layers(
            embedded,
            key=layers_key,
            per_layer={"prefix": prefix},
            visible=visible,
            return_state=return_final_state,
            return_per_layer=return_final_state,
            return_hidden_states=return_hidden_states,
            **self.context(positions),
        )
        hidden = self.finish(last)
        encoded = (hidden, (embedded, *outputs[:-1], hidden)) if return_hidden_states else hidden
        return encoded if own is None else (encoded, joined_state(initial_state, own, mask))
