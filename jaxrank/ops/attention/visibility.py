"""Which keys a query may attend to: what all implementations understand alike."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Visibility(NamedTuple):
    """The rules of one call; a rule that is None hides nothing. See `attention` for their words."""

    mask: jax.Array | None = None
    key_lengths: jax.Array | None = None
    segment_ids: jax.Array | None = None
    key_segment_ids: jax.Array | None = None
    is_causal: bool = False
    window: int | jax.Array | None = None
    query_offset: int = 0


def visible_keys(
    visibility: Visibility, positions: jax.Array, num_keys: int
) -> tuple[jax.Array, ...]:
    """One boolean array for each rule; a query sees the keys that all of them call True.

    Args:
        positions: which of the call's queries they are, (L,); `segment_ids` has theirs alone.

    Returns:
        Arrays that broadcast to (B, 1, L, S), left apart so that XLA computes each on the fly.
    """
    rules = []
    if visibility.mask is not None:
        rules.append(visibility.mask[:, None, None, :])
    keys = jnp.arange(num_keys)
    if visibility.key_lengths is not None:
        rules.append((keys[None, :] < visibility.key_lengths[:, None])[:, None, None, :])
    if visibility.segment_ids is not None and visibility.key_segment_ids is not None:
        own = visibility.segment_ids[:, :, None] == visibility.key_segment_ids[:, None, :]
        rules.append(own[:, None])
    # How far a key lies behind the query: negative ones lie ahead.
    behind_LS = (visibility.query_offset + positions)[:, None] - keys[None, :]
    if visibility.is_causal:
        rules.append((behind_LS >= 0)[None, None])
    if visibility.window is not None:
        rules.append((jnp.abs(behind_LS) <= visibility.window)[None, None])
    return tuple(rules)
