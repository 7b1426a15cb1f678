"""`selective_scan` one token at a time, with a backward pass of its own: the default on CPU.

The forward pass keeps the states before each chunk of CHUNK tokens. The backward pass goes through
the chunks from last to first, recomputes the states inside one, and runs the adjoint recurrence:
with r_t the cotangent of read_t and a_t = [not reset_t] exp(step_t A),

    g_t     = C_t r_t + a_{t+1} g_{t+1}      cotangent of h_t, seeded by the final state's
    d step  = sum_n A * (a_t g_t h_{t-1})    dA = sum_{b,t} step_t (a_t g_t h_{t-1})
    d drive = sum_n B_t g_t                  dB = sum_d drive_t g_t      dC = sum_d r_t h_t

What happens on the edges of the recurrence (softplus, bias, mask, skip, gate) is differentiated by
JAX, chunk by chunk, so of it nothing is kept beside the input itself.
"""

import functools
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from jaxrank.ops.selective_scan.tokens import (
    Arguments,
    Drive,
    Marks,
    Tokens,
    Weights,
    finish,
    prepare,
    sort_arguments,
)

# States kept take 4 B L D N / CHUNK bytes (N = 16: as much as u itself), states recomputed
# 4 B D N CHUNK. On two CPU cores at B4 L512 D1536 N16, 16 was the fastest of 16, 32 and 64.
CHUNK = 16

Gradients = tuple[Tokens, None, Weights, jax.Array]
Tree = TypeVar("Tree")


def selective_scan_time(arguments: Arguments) -> tuple[jax.Array, jax.Array]:
    """Return (y, final state)."""
    length = arguments.u.shape[1]
    chunk = min(CHUNK, length)
    sequence = sort_arguments(arguments, chunk=chunk)
    h_BND = jnp.swapaxes(arguments.initial_state, 1, 2)
    y, h_BND = _scan(chunk, arguments.softplus, *sequence, h_BND)
    return y[:, :length], jnp.swapaxes(h_BND, 1, 2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _scan(
    chunk: int, softplus: bool, tokens: Tokens, marks: Marks, weights: Weights, h_BND: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return _scan_forward(chunk, softplus, tokens, marks, weights, h_BND)[0]


def _scan_forward(
    chunk: int, softplus: bool, tokens: Tokens, marks: Marks, weights: Weights, h_BND: jax.Array
) -> tuple[tuple[jax.Array, jax.Array], tuple[Tokens, Marks, Weights, jax.Array]]:
    def run_chunk(
        carry: tuple[jax.Array, jax.Array], start: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        h_BND, y = carry
        part, part_marks = _cut((tokens, marks), start, chunk)
        drive = prepare(part, part_marks.mask, weights.delta_bias, softplus=softplus)
        h_next, read = _recur(drive, part_marks.reset, weights.A, h_BND)
        y = _paste(y, finish(read, part, part_marks.mask, weights.D), start)
        return (h_next, y), h_BND

    starts = jnp.arange(0, tokens.u.shape[1], chunk)
    (h_last, y), kept = lax.scan(run_chunk, (h_BND, jnp.zeros_like(tokens.u)), starts)
    return (y, h_last), (tokens, marks, weights, kept)


def _scan_backward(
    chunk: int,
    softplus: bool,
    saved: tuple[Tokens, Marks, Weights, jax.Array],
    cotangents: tuple[jax.Array, jax.Array],
) -> Gradients:
    tokens, marks, weights, kept = saved
    y_bar, h_bar = cotangents
    batch = tokens.u.shape[0]

    def run_chunk(
        carry: tuple[jax.Array, Tokens, Weights], chunk_start: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, Tokens, Weights], None]:
        g_BND, tokens_bar, weights_bar = carry
        h_BND, start = chunk_start
        part, part_marks, part_y_bar = _cut((tokens, marks, y_bar), start, chunk)
        mask = part_marks.mask

        drive, pull_prepare = jax.vjp(
            lambda part, bias: prepare(part, mask, bias, softplus=softplus),
            part,
            weights.delta_bias,
        )
        # y is linear in what was read, so its cotangent can be had before the reading itself.
        (read_bar,) = jax.linear_transpose(
            lambda read: finish(read, part, mask, weights.D),
            jax.ShapeDtypeStruct(part.u.shape, jnp.float32),
        )(part_y_bar)
        states, read, C_bar = _recompute(drive, part_marks.reset, weights.A, h_BND, read_bar)
        g_BND, A_bar, drive_bar = _adjoint(
            drive, part_marks.reset, weights.A, states, read_bar, g_BND
        )
        drive_bar = drive_bar._replace(C=C_bar)

        part_bar, bias_bar = pull_prepare(drive_bar)
        _, pull_finish = jax.vjp(lambda part, D: finish(read, part, mask, D), part, weights.D)
        finish_bar, D_bar = pull_finish(part_y_bar)
        part_bar = jax.tree.map(jnp.add, part_bar, finish_bar)
        tokens_bar = jax.tree.map(lambda x, part: _paste(x, part, start), tokens_bar, part_bar)
        weights_bar = jax.tree.map(jnp.add, weights_bar, Weights(A_bar, D_bar, bias_bar))
        return (g_BND, tokens_bar, weights_bar), None

    starts = jnp.arange(0, tokens.u.shape[1], chunk)
    zeros = jax.tree.map(jnp.zeros_like, (tokens, weights))
    # A's gradient is summed over the batch once, at the end: B times the memory, half the time.
    per_sequence = zeros[1]._replace(A=jnp.zeros((batch, *weights.A.shape), jnp.float32))
    (g_BND, tokens_bar, weights_bar), _ = lax.scan(
        run_chunk, (h_bar, zeros[0], per_sequence), (kept, starts), reverse=True
    )
    return tokens_bar, None, weights_bar._replace(A=weights_bar.A.sum(0)), g_BND


_scan.defvjp(_scan_forward, _scan_backward)


def _recur(
    drive: Drive, reset: jax.Array | None, A_ND: jax.Array, h_BND: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Run one chunk: return the state after it and what was read, (B, K, D)."""

    def step(
        h_BND: jax.Array, token: tuple[Drive, jax.Array | None]
    ) -> tuple[jax.Array, jax.Array]:
        now, reset = token
        h_BND = _decay(now, reset, A_ND) * h_BND + now.drive[:, None, :] * now.B[:, :, None]
        return h_BND, jnp.sum(h_BND * now.C[:, :, None], axis=1)

    h_BND, read = lax.scan(step, h_BND, _by_time((drive, reset)))
    return h_BND, _by_time(read)


def _recompute(
    drive: Drive, reset: jax.Array | None, A_ND: jax.Array, h_BND: jax.Array, read_bar: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Run one chunk again: return the state before each token, what was read, and dC."""

    def step(
        h_BND: jax.Array, token: tuple[Drive, jax.Array | None, jax.Array]
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
        now, reset, read_bar = token
        h_next = _decay(now, reset, A_ND) * h_BND + now.drive[:, None, :] * now.B[:, :, None]
        read = jnp.sum(h_next * now.C[:, :, None], axis=1)
        return h_next, (h_BND, read, _sum_channels(h_next, read_bar))

    _, (states_KBND, read, C_bar) = lax.scan(step, h_BND, _by_time((drive, reset, read_bar)))
    return states_KBND, _by_time(read), _by_time(C_bar)


def _adjoint(
    drive: Drive,
    reset: jax.Array | None,
    A_ND: jax.Array,
    states_KBND: jax.Array,
    read_bar: jax.Array,
    g_BND: jax.Array,
) -> tuple[jax.Array, jax.Array, Drive]:
    """Run one chunk's adjoint: return g before it, dA by sequence, and the drive's (C zero)."""

    def step(
        carry: tuple[jax.Array, jax.Array],
        token: tuple[Drive, jax.Array | None, jax.Array, jax.Array],
    ) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array, jax.Array]]:
        g_BND, A_bar = carry
        now, reset, read_bar, h_before = token
        g_BND = g_BND + now.C[:, :, None] * read_bar[:, None, :]
        g_before = _decay(now, reset, A_ND) * g_BND
        exponent_bar = g_before * h_before
        step_bar = jnp.sum(exponent_bar * A_ND[None, :, :], axis=1)
        drive_bar = jnp.sum(g_BND * now.B[:, :, None], axis=1)
        A_bar = A_bar + exponent_bar * now.step[:, None, :]
        return (g_before, A_bar), (step_bar, drive_bar, _sum_channels(g_BND, now.drive))

    (g_BND, A_bar), bars = lax.scan(
        step,
        (g_BND, jnp.zeros_like(g_BND)),
        (*_by_time((drive, reset, read_bar)), states_KBND),
        reverse=True,
    )
    step_bar, drive_bar, B_bar = _by_time(bars)
    return g_BND, A_bar, Drive(step_bar, drive_bar, B_bar, jnp.zeros_like(B_bar))


def _decay(now: Drive, reset: jax.Array | None, A_ND: jax.Array) -> jax.Array:
    decay_BND = jnp.exp(now.step[:, None, :] * A_ND[None, :, :])
    return decay_BND if reset is None else jnp.where(reset[:, None, None], 0.0, decay_BND)


def _sum_channels(x_BND: jax.Array, y_BD: jax.Array) -> jax.Array:
    # A matrix product, since XLA on CPU does not vectorise a sum over the innermost axis; in full
    # float32, since a GPU's default would be TF32.
    return jnp.einsum("bnd,bd->bn", x_BND, y_BD, precision=lax.Precision.HIGHEST)


def _by_time(tree: Tree) -> Tree:
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), tree)


def _cut(tree: Tree, start: jax.Array, chunk: int) -> Tree:
    return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, start, chunk, axis=1), tree)


def _paste(whole: jax.Array, part: jax.Array, start: jax.Array) -> jax.Array:
    return lax.dynamic_update_slice_in_dim(whole, part, start, axis=1)
