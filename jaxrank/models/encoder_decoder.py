"""What encoder-decoders share: what the decoder reads, and the way from one stack to the other."""

from collections.abc import Mapping
from typing import Any, Literal

from flax import nnx
from jax import numpy as jnp

from jaxrank.errors import InputError
from jaxrank.models.backbone import BackboneConfig, check_length
from jaxrank.models.layers import split_key
from jaxrank.models.packing import Packing, token_positions, visible_tokens
from jaxrank.shapes import Array, Bool, Float, Int, Key

DecoderInput = Literal["start", "text"]
Decoded = Float[Array, "B _ D"] | tuple[Float[Array, "B _ D"], tuple[Array, ...]]
"""The decoder's vectors, one or L a text, or those and all hidden states."""

ENCODE_OPTIONS: Mapping[str, Mapping[str, DecoderInput]] = {
    "linear": {"decoder_input": "start"},
    "classification": {"decoder_input": "text"},
}
"""Name of a head -> what the decoder reads under it."""


class EncoderDecoderConfig(BackboneConfig):
    """A configuration of two stacks; `num_layers` are the encoder's."""

    decoder_start_token_id: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decoder_start_token_id >= self.vocab_size:
            raise InputError(
                f"{type(self).__name__}: decoder_start_token_id is {self.decoder_start_token_id}; "
                f"the vocabulary has {self.vocab_size} ids"
            )


class EncoderDecoder(nnx.Module):
    """An encoder that reads the text, and a decoder that attends to what it yields.

    A subclass makes `config`, `token` (ids to vectors, for both stacks), `encoder` and `decoder`.
    A stack is called as `stack(embedded, positions, *, visible, source, source_visible, key,
    return_hidden_states)` and returns its result and its hidden states. The encoder is told which
    tokens see each other; the decoder what it attends to, and who sees what of that. It needs no
    mask of its own: no position sees a later one, and padding stands last.
    """

    config: Any
    token: Any
    encoder: Any
    decoder: Any

    def encode(
        self,
        input_ids: Int[Array, "B L"],
        *,
        mask: Bool[Array, "B L"],
        token_type_ids: Int[Array, "B L"] | None = None,
        packing: Packing | None = None,
        key: Key[Array, ""] | None = None,
        return_hidden_states: bool = False,
        decoder_input: DecoderInput = "start",
    ) -> Decoded:
        """Encode texts and decode; see Backbone. Token types are not looked at.

        The decoder's vectors are the result: with `decoder_input` "start" one vector a text, of the
        one step from the start token, as the papers score T5; with "text" a vector for each
        token, the decoder having read the start token and then the text up to the token before, as
        transformers' sequence classification does. There the vector at the last real token is
        scored. Transformers looks for the last end-of-sequence token, which is the same one
        wherever a text ends in it, as a tokenizer's own pairs do.

        Packed, "start" yields the vectors of the T texts of each row, (B, T, D).
        """
        check_length(input_ids, self.config, packing)
        encoder_key, decoder_key = split_key(key, 2)
        encoded, encoder_states = self.encoder(
            self.token(input_ids),
            token_positions(input_ids, packing),
            visible=visible_tokens(mask, packing),
            key=encoder_key,
            return_hidden_states=return_hidden_states,
        )
        start = self.config.decoder_start_token_id
        decoder_ids = _decoder_ids(input_ids, start, decoder_input, packing)
        decoding = None if packing is None else decoder_packing(packing, decoder_input)
        source_visible = visible_tokens(mask, decoding)
        if packing is not None:
            source_visible = source_visible._replace(key_segment_ids=packing.segment_ids)
        hidden, decoder_states = self.decoder(
            self.token(decoder_ids),
            token_positions(decoder_ids, decoding),
            visible=visible_tokens(None, decoding),
            source=encoded,
            source_visible=source_visible,
            key=decoder_key,
            return_hidden_states=return_hidden_states,
        )
        return (hidden, (*encoder_states, *decoder_states)) if return_hidden_states else hidden


def decoder_packing(packing: Packing, decoder_input: DecoderInput) -> Packing:
    """Where the decoder's tokens stand: those of the texts, or one a text side by side."""
    if decoder_input == "text":
        return packing
    texts_BT = jnp.broadcast_to(jnp.arange(packing.first.shape[1])[None], packing.first.shape)
    return Packing(texts_BT + 1, jnp.zeros_like(texts_BT), first=texts_BT, last=texts_BT)


def _decoder_ids(
    input_ids: Int[Array, "B L"], start: int, decoder_input: DecoderInput, packing: Packing | None
) -> Int[Array, "B _"]:
    """Each text's start token, and for "text" all its tokens but the last behind it."""
    if decoder_input == "start":
        return jnp.full_like(input_ids[:, :1] if packing is None else packing.first, start)
    starts = jnp.full_like(input_ids[:, :1], start)
    shifted = jnp.concatenate([starts, input_ids[:, :-1]], axis=1)
    return shifted if packing is None else jnp.where(packing.positions == 0, start, shifted)
