"""What is left of a state or an input after some tokens of a chunk, for `chunked.py`.

Letters of suffixes: K chunks, which have nothing to do with each other here; I and J the tokens of
a chunk, as readers and as writers; G R heads, as groups of R.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike


class Decays(NamedTuple):
    """What is left, float32 in [0, 1]; zero across a reset."""

    between: jax.Array  # K G R I J: once i is over, of what j wrote; one at i = j, zero if i < j
    from_start: jax.Array  # K G R I: once i is over, of the state before the chunk
    to_end: jax.Array  # K G R J: once the chunk is over, of what j wrote


def decays_of(
    exponent_KGRJ: jax.Array, segment_KJ: jax.Array | None, gradient_dtype: DTypeLike
) -> Decays:
    """The decays of a chunk from the exponents of its tokens, none positive.

    Args:
        exponent_KGRJ: float32.
        segment_KJ: how many resets of the chunk came up to a token, its own included; None: there
            are no resets.
        gradient_dtype: of the large factor in the matrix product that sums the exponents' gradient.
    """
    from_start = jnp.cumsum(exponent_KGRJ, axis=-1)
    after_first = exponent_KGRJ[..., 1:]
    to_end = jnp.flip(jnp.cumsum(jnp.flip(after_first, -1), axis=-1), -1)
    to_end = jnp.pad(to_end, [(0, 0), (0, 0), (0, 0), (0, 1)])
    if segment_KJ is not None:
        is_first, is_last = segment_KJ == 0, segment_KJ == segment_KJ[:, -1:]
        from_start = jnp.where(is_first[:, None, None], from_start, -jnp.inf)
        to_end = jnp.where(is_last[:, None, None], to_end, -jnp.inf)
    return Decays(
        between=_between(gradient_dtype, exponent_KGRJ, segment_KJ),
        from_start=jnp.exp(from_start),
        to_end=jnp.exp(to_end),
    )


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _between(
    gradient_dtype: DTypeLike, exponent_KGRJ: jax.Array, segment_KJ: jax.Array | None
) -> jax.Array:
    """(K, G, R, I, J): exp of the exponents' sum over j < k <= i, where i and j are linked.

    As a difference of two running totals, which alone would be no better than the larger one was
    rounded: after one strong decay the weak ones that follow would lose their digits. So what
    rounding took from each total is kept beside it.
    """
    total = jnp.cumsum(exponent_KGRJ, axis=-1)
    steps = total - jnp.pad(total[..., :-1], [(0, 0), (0, 0), (0, 0), (1, 0)])
    lost = jnp.cumsum(exponent_KGRJ - steps, axis=-1)
    sums = (total[..., :, None] - total[..., None, :]) + (lost[..., :, None] - lost[..., None, :])
    position = jnp.arange(exponent_KGRJ.shape[-1])
    is_linked_KIJ = (position[:, None] >= position[None, :])[None]
    if segment_KJ is not None:
        is_linked_KIJ = is_linked_KIJ & (segment_KJ[:, :, None] == segment_KJ[:, None, :])
    # Added before the exponential, which would overflow above the diagonal. A sum of chunks' size
    # and no selection: JAX would take the selection's other side, as large as all heads' matrices,
    # out of the loop over chunks and keep it in memory.
    blocked_KIJ = jnp.where(is_linked_KIJ, 0.0, -jnp.inf)
    return jnp.exp(sums + blocked_KIJ[:, None, None])


@_between.defjvp
def _between_jvp(
    gradient_dtype: DTypeLike,
    primals: tuple[jax.Array, jax.Array | None],
    tangents: tuple[jax.Array, jax.Array | None],
) -> tuple[jax.Array, jax.Array]:
    # As a sum of its own terms: transposed, the gradient to k is the sum over the pairs around it.
    # Through the totals it would be a difference of sums over all pairs, without the small digits.
    # The pairs are one axis, so that transposed it is one matrix product that reads the pairs'
    # cotangents once and writes nothing of their size.
    tangent_KGRJ, _ = tangents
    between = _between(gradient_dtype, *primals)
    chunk = tangent_KGRJ.shape[-1]
    reader, writer = jnp.divmod(jnp.arange(chunk**2), chunk)
    token = jnp.arange(chunk)[:, None]
    is_around = (writer[None, :] < token) & (token <= reader[None, :])
    sums = jnp.einsum(
        "kgrt,tp->kgrp", tangent_KGRJ.astype(gradient_dtype), is_around.astype(gradient_dtype)
    )
    return between, between * sums.astype(jnp.float32).reshape(between.shape)
