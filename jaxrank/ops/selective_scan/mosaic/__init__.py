"""`selective_scan` as kernels for NVIDIA GPUs of the Hopper generation and newer.

Here the arguments are made what the kernels take, in jnp code that JAX differentiates: absent
tokens are neutral, L is padded to whole chunks and N to whole copies, the states' axes are turned
to (N, D). Beneath it `gradient.py` makes the kernels of `forward.py` and `backward.py` one
differentiable function, `split.py` and `carry.py` cut sequences where there are too few of them,
`sharded.py` spreads them over devices, `mapped.py` lets `jax.vmap` map them.

No array of (B, L, D, N) is ever in memory: the forward kernel keeps one state in KEEP_EVERY tokens,
and only where a gradient is asked for. Nothing is added up in an order that changes from run to
run, so the same arguments give the same bits.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxrank.ops.selective_scan.choice import find_refusal
from jaxrank.ops.selective_scan.mosaic.gradient import How, scan
from jaxrank.ops.selective_scan.mosaic.operands import (
    KEEP_EVERY,
    RESET_EXPONENT,
    Operands,
    absent_delta,
)
from jaxrank.ops.selective_scan.tokens import Arguments

# Copies are of 16 bytes or more, so rows of states are.
STATES_MULTIPLE = 4


def selective_scan_mosaic(
    arguments: Arguments, *, segments: int | None = None, interpret: Any = None
) -> tuple[jax.Array, jax.Array]:
    """Return (y, final state).

    Args:
        arguments: D a multiple of 128, N at most 32.
        segments: into how many each sequence is cut; by default `choose_segments` says.
        interpret: as `plgpu.kernel` takes it; for tests.

    Raises:
        ValueError: D or N is of another size.
    """
    length, mask = arguments.u.shape[1], arguments.mask
    channels, states = arguments.A.shape
    if refusal := find_refusal(channels, states):
        raise ValueError(
            f"selective_scan: implementation 'mosaic': {refusal}; 'associative' takes any"
        )
    operands, initial_state = make_operands(arguments)
    how = How(arguments.softplus, segments, interpret)
    y, final_state = scan(how, operands, initial_state)
    y = y[:, :length].astype(arguments.u.dtype)
    if mask is not None:
        y = _stop_absent(y, mask)
    return y, jnp.swapaxes(final_state, 1, 2)[:, :, :states]


def make_operands(arguments: Arguments) -> tuple[Operands, jax.Array]:
    """Return what the kernels read, and the initial state (B, N, D)."""
    u, delta, A, B, C, D, z, delta_bias, softplus, initial_state, reset, mask = arguments
    channels, states = A.shape
    more_states = -states % STATES_MULTIPLE
    more_tokens = -u.shape[1] % KEEP_EVERY

    def per_channel(weight: jax.Array | None) -> jax.Array:
        return jnp.zeros(channels, jnp.float32) if weight is None else weight.astype(jnp.float32)

    def by_token(x: jax.Array, *, absent: float = 0.0, more: int = 0) -> jax.Array:
        """Fill absent tokens and padding (selected, not multiplied: they may be NaN)."""
        if mask is not None:
            x = jnp.where(mask[:, :, None], x, jnp.asarray(absent, x.dtype))
        padding = ((0, 0), (0, more_tokens), (0, 0))
        x = jnp.pad(x, padding, constant_values=absent) if more_tokens else x
        return jnp.pad(x, ((0, 0), (0, 0), (0, more))) if more else x

    if not softplus and delta_bias is not None:
        # An absent token's step must stay 0, so it must not meet the bias any more.
        delta, delta_bias = delta.astype(jnp.float32) + per_channel(delta_bias)[None, None], None
    forget = None
    if reset is not None:
        reset = reset if mask is None else reset & mask
        forget = jnp.where(reset, jnp.float32(RESET_EXPONENT), jnp.float32(0.0))
        forget = jnp.pad(forget, ((0, 0), (0, more_tokens)))
    # A state more than there are is never written to nor read.
    A_ND = jnp.pad(A.T.astype(jnp.float32), ((0, more_states), (0, 0)), constant_values=-1.0)
    h_BND = jnp.pad(jnp.swapaxes(initial_state, 1, 2), ((0, 0), (0, more_states), (0, 0)))
    operands = Operands(
        u=by_token(_at_edge(u)),
        delta=by_token(_at_edge(delta), absent=absent_delta(softplus=softplus)),
        z=None if z is None else by_token(_at_edge(z)),
        A=A_ND,
        B=by_token(B.astype(jnp.float32), more=more_states),
        C=by_token(C.astype(jnp.float32), more=more_states),
        D=per_channel(D),
        delta_bias=per_channel(delta_bias),
        forget=forget,
    )
    return operands, h_BND


@jax.custom_vjp
def _stop_absent(y: jax.Array, mask: jax.Array) -> jax.Array:
    """Y itself, which is 0 for absent tokens; nothing flows back from these.

    Not `jnp.where`: that would be a pass over y in the forward direction too, for nothing.
    """
    return y


def _keep_mask(y: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    return y, mask


def _drop_absent(mask: jax.Array, y_bar: jax.Array) -> tuple[jax.Array, None]:
    # Selected, not multiplied: it may be NaN.
    return jnp.where(mask[:, :, None], y_bar, jnp.zeros((), y_bar.dtype)), None


_stop_absent.defvjp(_keep_mask, _drop_absent)


def _at_edge(x: jax.Array) -> jax.Array:
    """In bfloat16 or float32, which the kernels read and write."""
    return x if x.dtype == jnp.bfloat16 else x.astype(jnp.float32)
