"""The specification of `selective_scan`: the equations of `api.py`, one token at a time.

Every other implementation must equal this one. It is meant to be read, not to be fast: its
gradient keeps every state of every token.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxrank.ops.selective_scan.tokens import Arguments


def selective_scan_reference(
    arguments: Arguments, dtype: type = jnp.float32
) -> tuple[jax.Array, jax.Array]:
    """Return (y, final state), computed in `dtype`: float64 where others are checked by it."""
    u, delta, A, B, C, D, z, delta_bias, softplus, initial_state, reset, mask = arguments
    reset = jnp.zeros(u.shape[:2], bool) if reset is None else reset
    mask = jnp.ones(u.shape[:2], bool) if mask is None else mask
    A = A.astype(dtype)

    def step(h_BDN: jax.Array, token: tuple[Any, ...]) -> tuple[jax.Array, jax.Array]:
        u, delta, B, C, z, reset, mask = token
        present = mask[:, None]
        # Absent tokens may hold anything. Zeros keep a NaN out of the gradients as well.
        u, delta, B, C, z = jax.tree.map(
            lambda x: jnp.where(present, x.astype(dtype), 0.0), (u, delta, B, C, z)
        )
        if delta_bias is not None:
            delta = delta + delta_bias.astype(dtype)[None, :]
        if softplus:
            delta = jax.nn.softplus(delta)
        before = jnp.where(reset[:, None, None], 0.0, h_BDN)
        decay = jnp.exp(delta[:, :, None] * A[None, :, :])
        after = decay * before + (delta * u)[:, :, None] * B[:, None, :]
        h_BDN = jnp.where(present[:, :, None], after, h_BDN)
        y_BD = jnp.sum(h_BDN * C[:, None, :], axis=2)
        if D is not None:
            y_BD = y_BD + D.astype(dtype)[None, :] * u
        if z is not None:
            y_BD = y_BD * jax.nn.silu(z)
        return h_BDN, jnp.where(present, y_BD, 0.0)

    by_time = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), (u, delta, B, C, z, reset, mask))
    final_state, y_LBD = jax.lax.scan(step, initial_state, by_time)
    return jnp.swapaxes(y_LBD, 0, 1).astype(u.dtype), final_state
