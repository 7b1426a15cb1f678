"""`selective_scan` in parallel over tokens: the default on GPUs and TPUs.

The recurrence h_t = a_t h_{t-1} + b_t is a scan over pairs (a, b) with the associative product

    (a1, b1) then (a2, b2) = (a1 a2, a2 b1 + b2)      (Blelloch 1990; Mamba paper, section 3.3.2)

A whole sequence of such pairs would take 2 N times the memory of the input. So chunks of CHUNK
tokens follow each other, each in parallel inside, and the backward pass computes a chunk again
from the state before it.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxrank.ops.selective_scan.tokens import (
    Arguments,
    Marks,
    Tokens,
    finish,
    prepare,
    sort_arguments,
)

# A chunk's pairs take 8 B D N CHUNK bytes, and its product tree a few times that. On CPU 16 was
# the fastest of 16, 32 and 64; a GPU wants fewer, larger steps.
CHUNK = 32


def selective_scan_associative(arguments: Arguments) -> tuple[jax.Array, jax.Array]:
    """Return (y, final state)."""
    length = arguments.u.shape[1]
    chunk = min(CHUNK, length)
    tokens, marks, weights = sort_arguments(arguments, chunk=chunk)

    @jax.checkpoint
    def run_chunk(h_BND: jax.Array, part: tuple[Tokens, Marks]) -> tuple[jax.Array, jax.Array]:
        tokens, (reset, mask) = part
        drive = prepare(tokens, mask, weights.delta_bias, softplus=arguments.softplus)
        decay_KBND = jnp.exp(drive.step[:, :, None, :] * weights.A[None, None, :, :])
        if reset is not None:
            decay_KBND = jnp.where(reset[:, :, None, None], 0.0, decay_KBND)
        write_KBND = drive.drive[:, :, None, :] * drive.B[:, :, :, None]
        decay_KBND, state_KBND = lax.associative_scan(_then, (decay_KBND, write_KBND))
        state_KBND = state_KBND + decay_KBND * h_BND[None]
        read = jnp.einsum("kbnd,kbn->kbd", state_KBND, drive.C, precision=lax.Precision.HIGHEST)
        return state_KBND[-1], finish(read, tokens, mask, weights.D)

    def split(x: jax.Array) -> jax.Array:
        """(B, L, ...) -> (chunks, K, B, ...)."""
        return jnp.swapaxes(x, 0, 1).reshape(-1, chunk, x.shape[0], *x.shape[2:])

    h_BND = jnp.swapaxes(arguments.initial_state, 1, 2)
    h_BND, y = lax.scan(run_chunk, h_BND, jax.tree.map(split, (tokens, marks)))
    y = jnp.swapaxes(y.reshape(-1, *y.shape[2:]), 0, 1)
    return y[:, :length], jnp.swapaxes(h_BND, 1, 2)


def _then(
    first: tuple[jax.Array, jax.Array], second: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (first_decay, first_write), (second_decay, second_write) = first, second
    return first_decay * second_decay, second_decay * first_write + second_write
