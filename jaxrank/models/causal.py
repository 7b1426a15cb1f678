"""CausalDecoder: what the transformer decoders share around their layers.

Embed the tokens, apply layers in which a token sees itself and those before it, finish.
"""

from collections.abc import Callable
from typing import Any

from flax import nnx

from jaxrank.models.backbone import BackboneConfig, Encoded, check_length
from jaxrank.models.heads import LinearHead
from jaxrank.models.layers import split_key
from jaxrank.models.packing import Packing, token_positions, visible_tokens
from jaxrank.models.stack import LayerStack, Remat
from jaxrank.shapes import Array, Bool, Float, Int, Key


def classification_head(
    config: BackboneConfig, *, dropout_rate: float, rngs: nnx.Rngs
) -> LinearHead:
    """The head of transformers' classifiers on decoders, which score the last token.

    They have no dropout there, so the rate is not used.
    """
    del dropout_rate
    return LinearHead(config, pooling="last", dropout_rate=0.0, use_bias=False, rngs=rngs)


class CausalDecoder(nnx.Module):
    """A backbone but for `embed`, `context` and `finish`, which an architecture fills in.

    The mask is not used: padding stands on the right, where no real token looks.

    Args:
        config: the architecture's.
        make_layer: builds one layer, called as `layer(hidden, visible=..., key=..., **context)`.
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
    ) -> Encoded:
        """Encode texts; see Backbone. Neither the mask nor token types are used.

        The hidden states are the embeddings, the output of every layer but the last, and what
        `finish` makes of that one.
        """
        del mask, token_type_ids
        check_length(input_ids, self.config, packing)
        embeddings_key, layers_key = split_key(key, 2)
        positions = token_positions(input_ids, packing)
        embedded = self.embed(input_ids, positions, key=embeddings_key)
        context = self.context(positions) | {"visible": visible_tokens(None, packing)}
        if not return_hidden_states:
            last: Any = self.layers(embedded, key=layers_key, **context)
            return self.finish(last)
        last, outputs = self.layers(embedded, key=layers_key, return_hidden_states=True, **context)
        hidden = self.finish(last)
        return hidden, (embedded, *outputs[:-1], hidden)
