"""`ssd` by matrix products over chunks of tokens: the default everywhere.

Inside a chunk, with a_ij = exp(sum of dt_k A over j < k <= i) and h the state before it (Dao and
Gu 2024, section 6):

    y_i = sum_{j <= i} (C_i . B_j) a_ij dt_j x_j  +  a_i (h C_i)      a_i: since the chunk's start
    h'  = a h + sum_j a_j dt_j x_j B_j^T                a_j: until its end, a: over all of it

The first sum is attention with decay in place of softmax. Only `h' = a h + ..` has to wait for the
chunk before; all else is computed for many chunks at once, a span of each sequence. Spans follow
each other. All heads of a span take 4 B H SPAN CHUNK bytes for a_ij, so the backward pass computes
each span again from the state before it and never holds the matrices of two.

Letters of suffixes: K the chunks of a span, of all sequences; I and J a chunk's tokens, as readers
and as writers; R the heads of a group, so that H = G R.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from jaxrank.ops.ssd.decays import decays_of
from jaxrank.ops.ssd.reference import Arguments

# XLA makes one or two kernels of so many steps of the state from chunk to chunk, where a loop
# would start two or three a step.
STATES_UNROLLED = 16


class Tokens(NamedTuple):
    """A span of each sequence, as (B, span, ..), or as (K, J, ..) cut into chunks.

    With a leading axis it is all spans. Absent tokens are zeros.
    """

    x: jax.Array  # .. G R P
    dt: jax.Array  # .. G R
    B: jax.Array  # .. G N
    C: jax.Array  # .. G N
    # ..: how many resets of its chunk came up to a token, its own included; None: there are none.
    segment: jax.Array | None


def ssd_chunked(arguments: Arguments) -> tuple[jax.Array, jax.Array]:
    """Return (y, final state)."""
    x, B = arguments.x, arguments.B
    batch, length, heads, channels = x.shape
    groups, states = B.shape[2:]
    grouped = groups, heads // groups
    A_GR = arguments.A.astype(jnp.float32).reshape(grouped)
    D = arguments.D
    D_GR = jnp.zeros(grouped) if D is None else D.astype(jnp.float32).reshape(grouped)

    chunk = min(arguments.chunk, length)
    chunks = -(-length // chunk)
    spans = -(-chunks // arguments.chunks_at_once)
    # Shared out evenly, since what the last span lacks is padded.
    span = -(-chunks // spans) * chunk

    # The loop itself keeps the second computation apart from the first.
    @partial(jax.checkpoint, prevent_cse=False)
    def run_span(h_BGRPN: jax.Array, tokens: Tokens) -> tuple[jax.Array, jax.Array]:
        return _run_span(h_BGRPN, tokens, A_GR, D_GR, chunk)

    h_BGRPN = arguments.initial_state.reshape(batch, *grouped, channels, states)
    h_BGRPN, y = lax.scan(run_span, h_BGRPN, _split(arguments, spans, span, chunk))
    y = jnp.moveaxis(y, 0, 1).reshape(batch, -1, heads, channels)
    return y[:, :length], h_BGRPN.reshape(arguments.initial_state.shape)


def _split(arguments: Arguments, spans: int, span: int, chunk: int) -> Tokens:
    """Zero the absent tokens, pad L to `spans` of `span` tokens, bring spans to the front."""
    x, dt, _, B, C, _, _, _, _, reset, mask = arguments
    batch, length, heads, _ = x.shape
    if mask is not None:
        # Selected, not multiplied: an absent token may be NaN.
        x, dt, B, C = (
            jnp.where(mask.reshape(batch, length, *[1] * (v.ndim - 2)), v, 0) for v in (x, dt, B, C)
        )
        reset = None if reset is None else reset & mask

    def split(v: jax.Array, *groups: int) -> jax.Array:
        """(B, L, rest..) -> (spans, B, span, groups.., rest..); a zero step is no step."""
        v = jnp.pad(v, [(0, 0), (0, spans * span - length)] + [(0, 0)] * (v.ndim - 2))
        return jnp.moveaxis(v.reshape(batch, spans, span, *groups, *v.shape[3:]), 1, 0)

    groups = B.shape[2]
    of_heads = groups, heads // groups
    segment = None
    if reset is not None:
        resets = split(reset).reshape(spans, batch, -1, chunk)
        segment = jnp.cumsum(resets, axis=-1).reshape(spans, batch, span)
    return Tokens(
        split(x, *of_heads),
        split(dt.astype(jnp.float32), *of_heads),
        split(B, groups),
        split(C, groups),
        segment,
    )


def _run_span(
    h_BGRPN: jax.Array, tokens: Tokens, A_GR: jax.Array, D_GR: jax.Array, chunk: int
) -> tuple[jax.Array, jax.Array]:
    """Return the state after the span, and its y (B, span, G, R, P) in x's dtype."""
    x, dt, B, C, segment = jax.tree.map(lambda v: v.reshape(-1, chunk, *v.shape[2:]), tokens)
    product = partial(_product, x.dtype)

    exponent = dt * A_GR[None, None]
    decays = decays_of(jnp.moveaxis(exponent, 1, 3), segment, x.dtype)
    from_start, to_end = (jnp.moveaxis(v, 3, 1)[..., None] for v in decays[1:])
    # The step goes with x: with the decays it would be one more factor of every pair.
    stepped = dt[..., None] * x.astype(jnp.float32)

    match_KGIJ = product("kign,kjgn->kgij", C, B)
    y = product("kgrij,kjgrp->kigrp", match_KGIJ[:, :, None] * decays.between, stepped)
    write = product("kjgrp,kjgn->kgrpn", to_end * stepped, B)
    before, h_BGRPN = _pass_states(h_BGRPN, write, decays.from_start[..., -1])
    y = y + from_start * product("kign,kgrpn->kigrp", C, before)
    y = y + D_GR[None, None, :, :, None] * x.astype(jnp.float32)
    return h_BGRPN, y.astype(x.dtype).reshape(tokens.x.shape)


def _pass_states(
    h_BGRPN: jax.Array, write_KGRPN: jax.Array, decay_KGR: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return the state before each chunk (K, G, R, P, N), and the one after the last."""
    batch = h_BGRPN.shape[0]

    def by_chunk(v: jax.Array) -> jax.Array:
        return jnp.moveaxis(v.reshape(batch, -1, *v.shape[1:]), 1, 0)

    def step(h: jax.Array, chunk: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        write, decay = chunk
        return decay[..., None, None] * h + write, h

    after, before = lax.scan(
        step, h_BGRPN, (by_chunk(write_KGRPN), by_chunk(decay_KGR)), unroll=STATES_UNROLLED
    )
    return jnp.moveaxis(before, 0, 1).reshape(write_KGRPN.shape), after


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _product(dtype: DTypeLike, formula: str, left: jax.Array, right: jax.Array) -> jax.Array:
    """A matrix product of factors in `dtype`, summed in float32."""
    return jnp.einsum(
        formula, left.astype(dtype), right.astype(dtype), preferred_element_type=jnp.float32
    )


@_product.defjvp
def _product_jvp(
    dtype: DTypeLike,
    formula: str,
    primals: tuple[jax.Array, jax.Array],
    tangents: tuple[jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array]:
    # Transposed, these take the cotangent as a factor in `dtype` too. JAX's own rule would multiply
    # it in float32, and so hold float32 copies of both factors in memory.
    def narrow(left: jax.Array, right: jax.Array) -> jax.Array:
        return jnp.einsum(formula, left.astype(dtype), right.astype(dtype)).astype(jnp.float32)

    (left, right), (left_dot, right_dot) = primals, tangents
    return _product(dtype, formula, left, right), narrow(left_dot, right) + narrow(left, right_dot)
