"""Packing: several texts in one row, which attention, scans and convolutions keep apart.

Here stands all that a backbone asks of a packing: who sees whom, where in its text a token stands,
and where texts begin. Without a packing the answers are those of one text a row.
"""

from typing import NamedTuple

from jax import numpy as jnp

from jaxrank.shapes import Array, Bool, Int


class Packing(NamedTuple):
    """Where texts stand in rows; a pytree. A row holds up to T texts, then padding."""

    segment_ids: Int[Array, "B L"]
    """Number of a token's text in its row, from 1 on; 0 is padding."""
    positions: Int[Array, "B L"]
    """Place of a token in its text, from 0 on; 0 in padding."""
    first: Int[Array, "B T"]
    """Place in the row of each text's first token; 0 where a row has fewer texts."""
    last: Int[Array, "B T"]
    """Place in the row of each text's last token; 0 where a row has fewer texts."""


class Visible(NamedTuple):
    """Which tokens a token sees, in the words of `jaxrank.ops.attention`; by default all."""

    key_lengths: Int[Array, " B"] | None = None
    segment_ids: Int[Array, "B L"] | None = None
    key_segment_ids: Int[Array, "B S"] | None = None
    mask: Bool[Array, "B S"] | None = None


EVERYTHING = Visible()


def visible_tokens(mask: Bool[Array, "B L"] | None, packing: Packing | None) -> Visible:
    """Those that `mask` calls real, padding standing last, or, packed, those of its own text."""
    if packing is not None:
        return Visible(segment_ids=packing.segment_ids)
    return Visible(None if mask is None else jnp.sum(mask, axis=1, dtype=jnp.int32))


def token_positions(
    input_ids: Int[Array, "B L"], packing: Packing | None
) -> Int[Array, "*batch L"]:
    """Place of each token in its text: (B, L), or (L,) for all rows alike if not packed."""
    return jnp.arange(input_ids.shape[1]) if packing is None else packing.positions


def text_starts(packing: Packing | None) -> Bool[Array, "B L"] | None:
    """Where a recurrence forgets what stands before; None if not packed, when nothing does."""
    if packing is None:
        return None
    return (packing.positions == 0) & (packing.segment_ids > 0)
