"""The specification of `ssd`: the equations of `api.py`, one token at a time.

Every other implementation must equal this one. It is meant to be read, not to be fast: its
gradient keeps every state of every token.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Arguments(NamedTuple):
    """The checked arguments of `api.ssd`, which says what they are."""

    x: jax.Array
    dt: jax.Array
    A: jax.Array
    B: jax.Array
    C: jax.Array
    D: jax.Array | None
    chunk: int
    chunks_at_once: int
    initial_state: jax.Array
    reset: jax.Array | None
    mask: jax.Array | None


def ssd_reference(arguments: Arguments) -> tuple[jax.Array, jax.Array]:
    """Return (y, final state)."""
    x, dt, A, B, C, D, _, _, initial_state, reset, mask = arguments
    reset = jnp.zeros(x.shape[:2], bool) if reset is None else reset
    mask = jnp.ones(x.shape[:2], bool) if mask is None else mask
    A = A.astype(jnp.float32)
    heads_of_a_group = x.shape[2] // B.shape[2]

    def step(h_BHPN: jax.Array, token: tuple[Any, ...]) -> tuple[jax.Array, jax.Array]:
        x, dt, B, C, reset, mask = token
        # Absent tokens may hold anything. Zeros keep a NaN out of the gradients as well.
        x, dt, B, C = (
            jnp.where(mask.reshape(-1, *[1] * (v.ndim - 1)), v.astype(jnp.float32), 0.0)
            for v in (x, dt, B, C)
        )
        B, C = (jnp.repeat(v, heads_of_a_group, axis=1) for v in (B, C))
        here = mask[:, None, None, None]
        before = jnp.where(reset[:, None, None, None], 0.0, h_BHPN)
        decay = jnp.exp(dt * A[None, :])[:, :, None, None]
        write = (dt[:, :, None] * x)[:, :, :, None] * B[:, :, None, :]
        h_BHPN = jnp.where(here, decay * before + write, h_BHPN)
        y_BHP = jnp.sum(h_BHPN * C[:, :, None, :], axis=3)
        if D is not None:
            y_BHP = y_BHP + D.astype(jnp.float32)[None, :, None] * x
        return h_BHPN, y_BHP

    by_time = jax.tree.map(lambda v: jnp.swapaxes(v, 0, 1), (x, dt, B, C, reset, mask))
    final_state, y_LBHP = jax.lax.scan(step, initial_state, by_time)
    return jnp.swapaxes(y_LBHP, 0, 1).astype(x.dtype), final_state
