"""`ssd` by matrix products over chunks of tokens: the default everywhere.

Inside a chunk, with a_ij = exp(sum of dt_k A over j < k <= i) and h the state before it (Dao and
Gu 2024, section 6):

    y_i = sum_{j <= i} (C_i . B_j) a_ij dt_j x_j  +  a_i (h C_i)      a_i: since the chunk's start
    h'  = a h + sum_j a_j dt_j x_j B_j^T                a_j: until its end, a: over all of it

The first sum is attention with decay in place of softmax; chunks follow each other. All heads of
one chunk take 4 B H CHUNK^2 bytes for a_ij, so the backward pass computes each chunk again from
the state before it and never holds the matrices of two.

Letters of suffixes: I and J are the chunk's tokens, as readers and as writers; R the heads of a
group, so that H = G R.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxrank.ops.ssd.reference import Arguments


class Tokens(NamedTuple):
    """One chunk, or with a leading axis all of them; absent tokens are zeros."""

    x: jax.Array  # B G R J P
    dt: jax.Array  # B G R J
    B: jax.Array  # B G J N
    C: jax.Array  # B G I N
    reset: jax.Array | None  # B J


class Decays(NamedTuple):
    """What is left of a state or an input, float32 in [0, 1]; zero across a reset."""

    between: jax.Array  # B G R I J
    from_start: jax.Array  # B G R I
    to_end: jax.Array  # B G R J
    whole: jax.Array  # B G R


def ssd_chunked(arguments: Arguments) -> tuple[jax.Array, jax.Array]:
    """Return (y, final state)."""
    x, B = arguments.x, arguments.B
    batch, length, heads, channels = x.shape
    groups, states = B.shape[2:]
    grouped = groups, heads // groups
    A_GR = arguments.A.astype(jnp.float32).reshape(grouped)
    D = arguments.D
    D_GR = jnp.zeros(grouped) if D is None else D.astype(jnp.float32).reshape(grouped)

    @jax.checkpoint
    def run_chunk(h_BGRPN: jax.Array, tokens: Tokens) -> tuple[jax.Array, jax.Array]:
        return _run_chunk(h_BGRPN, tokens, A_GR, D_GR)

    h_BGRPN = arguments.initial_state.reshape(batch, *grouped, channels, states)
    h_BGRPN, y = lax.scan(run_chunk, h_BGRPN, _split(arguments, min(arguments.chunk, length)))
    y = jnp.transpose(y, (1, 0, 4, 2, 3, 5)).reshape(batch, -1, heads, channels)
    return y[:, :length], h_BGRPN.reshape(arguments.initial_state.shape)


def _split(arguments: Arguments, chunk: int) -> Tokens:
    """Zero the absent tokens, pad L to a multiple of `chunk`, bring chunks to the front."""
    x, dt, _, B, C, _, _, _, reset, mask = arguments
    batch, length, heads, _ = x.shape
    padding = -length % chunk
    if mask is not None:
        # Selected, not multiplied: an absent token may be NaN.
        x, dt, B, C = (
            jnp.where(mask.reshape(batch, length, *[1] * (v.ndim - 2)), v, 0) for v in (x, dt, B, C)
        )
        reset = None if reset is None else reset & mask

    def split(v: jax.Array, *groups: int) -> jax.Array:
        """(B, L, groups.., rest..) -> (chunks, B, groups.., J, rest..); a zero step is no step."""
        v = jnp.pad(v, [(0, 0), (0, padding)] + [(0, 0)] * (v.ndim - 2))
        v = v.reshape(batch, -1, chunk, *groups, *v.shape[3:])
        return jnp.moveaxis(jnp.moveaxis(v, 2, 2 + len(groups)), 1, 0)

    groups = B.shape[2]
    of_heads = groups, heads // groups
    return Tokens(
        split(x, *of_heads),
        split(dt.astype(jnp.float32), *of_heads),
        split(B, groups),
        split(C, groups),
        None if reset is None else split(reset),
    )


def _run_chunk(
    h_BGRPN: jax.Array, tokens: Tokens, A_GR: jax.Array, D_GR: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return the state after the chunk, and its y (B, G, R, I, P) in x's dtype."""
    x, dt, B, C, reset = tokens
    dtype = x.dtype

    def product(formula: str, left: jax.Array, right: jax.Array) -> jax.Array:
        """A matrix product of factors in x's dtype, summed in float32."""
        return jnp.einsum(
            formula, left.astype(dtype), right.astype(dtype), preferred_element_type=jnp.float32
        )

    decays = _decays(dt * A_GR[None, :, :, None], reset)
    match_BGIJ = product("bgin,bgjn->bgij", C, B)
    # The step goes with the decay, so that x itself is a factor as it came.
    weight_BGRIJ = match_BGIJ[:, :, None] * decays.between * dt[:, :, :, None, :]
    y = product("bgrij,bgrjp->bgrip", weight_BGRIJ, x)
    read = product("bgin,bgrpn->bgrip", C, h_BGRPN)
    y = y + decays.from_start[..., None] * read
    y = y + D_GR[None, :, :, None, None] * x.astype(jnp.float32)

    left_over = (decays.to_end * dt)[..., None] * x.astype(jnp.float32)
    write = product("bgrjp,bgjn->bgrpn", left_over, B)
    h_BGRPN = decays.whole[..., None, None] * h_BGRPN + write
    return h_BGRPN, y.astype(dtype)


def _decays(exponent: jax.Array, reset: jax.Array | None) -> Decays:
    """The decays of a chunk from the exponents (B, G, R, J) of its tokens, none positive."""
    chunk = exponent.shape[-1]
    from_start = jnp.cumsum(exponent, axis=-1)
    to_end = jnp.flip(jnp.cumsum(jnp.flip(exponent[..., 1:], -1), axis=-1), -1)
    to_end = jnp.pad(to_end, [(0, 0)] * 3 + [(0, 1)])
    whole = from_start[..., -1]
    is_linked = _is_earlier(chunk)[None]
    if reset is not None:
        segment = jnp.cumsum(reset, axis=-1)
        is_linked = is_linked & (segment[:, :, None] == segment[:, None, :])
        is_first, is_last = segment == 0, segment == segment[:, -1:]
        from_start = jnp.where(is_first[:, None, None, :], from_start, -jnp.inf)
        to_end = jnp.where(is_last[:, None, None, :], to_end, -jnp.inf)
        whole = jnp.where(is_first[:, None, None, -1], whole, -jnp.inf)
    # Selected before the exponential, which would overflow above the diagonal; the gradient would
    # be NaN. The diagonal is one whatever the exponents are.
    between = jnp.where(is_linked[:, None, None], _sums_between(exponent), -jnp.inf)
    return Decays(
        between=jnp.exp(between) + jnp.eye(chunk)[None, None, None],
        from_start=jnp.exp(from_start),
        to_end=jnp.exp(to_end),
        whole=jnp.exp(whole),
    )


def _is_earlier(chunk: int) -> jax.Array:
    """(I, J): whether j < i."""
    return jnp.tril(jnp.ones((chunk, chunk), bool), -1)


@jax.custom_jvp
def _sums_between(exponent: jax.Array) -> jax.Array:
    """(.., J) to (.., I, J): the sum over j < k <= i, where j < i; elsewhere anything.

    As a difference of two running totals, which alone would be no better than the larger one was
    rounded: after one strong decay the weak ones that follow would lose their digits. So what
    rounding took from each total is kept beside it.
    """
    total = jnp.cumsum(exponent, axis=-1)
    steps = total - jnp.pad(total[..., :-1], [(0, 0)] * (total.ndim - 1) + [(1, 0)])
    lost = jnp.cumsum(exponent - steps, axis=-1)
    return (total[..., :, None] - total[..., None, :]) + (lost[..., :, None] - lost[..., None, :])


@_sums_between.defjvp
def _sums_between_jvp(
    primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    # As a sum of its own terms: transposed, the gradient to k is the sum over the pairs around it.
    # Through the totals it would be a difference of sums over all pairs, without the small digits.
    (tangent,) = tangents
    is_earlier = _is_earlier(tangent.shape[-1])
    until_IK = jnp.where(is_earlier.T, 0.0, tangent[..., None, :])
    after_KJ = is_earlier.astype(jnp.float32)
    return _sums_between(*primals), jnp.einsum("...ik,kj->...ij", until_IK, after_KJ)
