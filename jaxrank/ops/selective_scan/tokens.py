"""What the fast implementations share: a sequence as one tree of arrays, and the work on its edges.

A recurrence proper sees float32 `step` (how far each channel moves), `drive` (what it writes),
B, C and `reset`:

    h_t = [not reset_t] exp(step_t A) * h_{t-1} + drive_t B_t        read_t = <h_t, C_t>

`prepare` makes these from the arguments, `finish` makes y from `read`. Both are elementwise over
tokens, so they run on any chunk of a sequence, and JAX differentiates them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Arguments(NamedTuple):
    """The checked arguments of `api.selective_scan`, which says what they are."""

    u: jax.Array
    delta: jax.Array
    A: jax.Array
    B: jax.Array
    C: jax.Array
    D: jax.Array | None
    z: jax.Array | None
    delta_bias: jax.Array | None
    softplus: bool
    initial_state: jax.Array
    reset: jax.Array | None
    mask: jax.Array | None


class Tokens(NamedTuple):
    """What differs from token to token and has a gradient: leading axes (B, L) or (L, B)."""

    u: jax.Array
    delta: jax.Array
    B: jax.Array
    C: jax.Array
    z: jax.Array | None


class Marks(NamedTuple):
    """Booleans by token: leading axes as in `Tokens`. Absent tokens have no `reset`."""

    reset: jax.Array | None
    mask: jax.Array | None


class Weights(NamedTuple):
    """What all tokens share, float32. A is transposed to (N, D)."""

    A: jax.Array
    D: jax.Array | None
    delta_bias: jax.Array | None


class Drive(NamedTuple):
    """What the recurrence takes, float32: step and drive (.., D), B and C (.., N)."""

    step: jax.Array
    drive: jax.Array
    B: jax.Array
    C: jax.Array


def sort_arguments(arguments: Arguments, *, chunk: int) -> tuple[Tokens, Marks, Weights]:
    """Sort the arguments of a scan, and pad L with absent tokens to a multiple of `chunk`."""
    u, delta, A, B, C, D, z, delta_bias, _, _, reset, mask = arguments
    padding = -u.shape[1] % chunk
    if padding and mask is None:
        mask = jnp.ones(u.shape[:2], bool)
    if reset is not None and mask is not None:
        reset = reset & mask

    def pad(x: jax.Array) -> jax.Array:
        return jnp.pad(x, [(0, 0), (0, padding)] + [(0, 0)] * (x.ndim - 2))

    tokens, marks = Tokens(u, delta, B, C, z), Marks(reset, mask)
    if padding:
        tokens, marks = jax.tree.map(pad, (tokens, marks))
    weights = jax.tree.map(lambda x: x.astype(jnp.float32), Weights(A.T, D, delta_bias))
    return tokens, marks, weights


def prepare(
    tokens: Tokens, mask: jax.Array | None, delta_bias: jax.Array | None, *, softplus: bool
) -> Drive:
    """Make what the recurrence takes. An absent token takes a step of zero: it changes nothing."""
    u, delta, B, C = (_present(x, mask) for x in (tokens.u, tokens.delta, tokens.B, tokens.C))
    if delta_bias is not None:
        delta = delta + delta_bias[None, None, :]
    if softplus:
        delta = jax.nn.softplus(delta)
    step = _present(delta, mask)
    return Drive(step, step * u, B, C)


def finish(
    read: jax.Array, tokens: Tokens, mask: jax.Array | None, D: jax.Array | None
) -> jax.Array:
    """Make y, in u's dtype: add the skip connection, apply the gate, zero the absent tokens."""
    y = read
    if D is not None:
        y = y + D[None, None, :] * _present(tokens.u, mask)
    if tokens.z is not None:
        y = y * jax.nn.silu(_present(tokens.z, mask))
    return _present(y, mask).astype(tokens.u.dtype)


def _present(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """X in float32, with zeros for absent tokens (selected, not multiplied: it may be NaN)."""
    x = x.astype(jnp.float32)
    return x if mask is None else jnp.where(mask[:, :, None], x, 0.0)
