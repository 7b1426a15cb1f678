"""The public `selective_scan`: its contract, its checks, and the choice of an implementation.

Letters beside those of `jaxrank.shapes` (Gu and Dao 2023, "Mamba", section 3, algorithm 2):

    u      the input of each channel           delta  its step size, before softplus
    A      the decay of each state, negative   B, C   what is written to, read from the states
    D      the skip connection                 z      the gate
    h      the states

The fast implementations keep the states as (B, N, D), since D is the long axis and wants to lie
innermost; the public layout is the paper's, (B, D, N).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxrank.ops.arguments import check_array, check_implementation, check_rank, log_choice
from jaxrank.ops.selective_scan.associative import selective_scan_associative
from jaxrank.ops.selective_scan.choice import choose_implementation
from jaxrank.ops.selective_scan.reference import selective_scan_reference
from jaxrank.ops.selective_scan.scan import selective_scan_time
from jaxrank.ops.selective_scan.tokens import Arguments
from jaxrank.shapes import Array, Bool, Float, Float32


def selective_scan_mosaic(arguments: Arguments) -> tuple[jax.Array, jax.Array]:
    """Return (y, final state)."""
    # Pallas takes as long to import as the rest of JAX; most machines never need it.
    from jaxrank.ops.selective_scan import mosaic

    return mosaic.selective_scan_mosaic(arguments)


IMPLEMENTATIONS: dict[str, Callable[[Arguments], tuple[jax.Array, jax.Array]]] = {
    "reference": selective_scan_reference,
    "scan": selective_scan_time,
    "associative": selective_scan_associative,
    "mosaic": selective_scan_mosaic,
}


def selective_scan(
    u: Float[Array, "B L D"],
    delta: Float[Array, "B L D"],
    A: Float[Array, "D N"],
    B: Float[Array, "B L N"],
    C: Float[Array, "B L N"],
    *,
    D: Float[Array, " D"] | None = None,
    z: Float[Array, "B L D"] | None = None,
    delta_bias: Float[Array, " D"] | None = None,
    softplus: bool = True,
    initial_state: Float32[Array, "B D N"] | None = None,
    reset: Bool[Array, "B L"] | None = None,
    mask: Bool[Array, "B L"] | None = None,
    return_final_state: bool = False,
    implementation: str = "auto",
) -> Float[Array, "B L D"] | tuple[Float[Array, "B L D"], Float32[Array, "B D N"]]:
    """Run the selective state-space recurrence over the tokens of each sequence.

        step_t = softplus(delta_t + delta_bias)              (D,)    as it is if not `softplus`
        h_t    = exp(step_t A) * h_{t-1} + step_t u_t B_t    (D, N)
        y_t    = (h_t C_t + D u_t) * silu(z_t)               (D,)

    Everything is computed in float32; `y` has u's dtype, the states are float32. Gradients flow to
    every array but `reset` and `mask`, from `y` and from the final state.

    Args:
        u, delta, z: the inputs, step sizes and gates of each channel.
        A: negative; B, C: shared by all channels.
        D, delta_bias: one number a channel.
        initial_state: the state before the first token; zeros if None.
        reset: at a True position everything before it is forgotten, `initial_state` too. What is
            forgotten must be finite: all but "reference" multiply it by zero.
        mask: a False position is as if absent: it does not change the state, its reset does not
            count, nothing of it (not even a NaN) reaches any output or gradient; its y is 0.
        return_final_state: also return the state after the last token, which continues the
            sequence when it comes back as `initial_state`.
        implementation: "reference" (one token at a time, the specification), "scan" (one token at
            a time, states recomputed in the backward pass), "associative" (parallel over tokens),
            "mosaic" (kernels for NVIDIA GPUs of the Hopper generation or newer; D a multiple of
            128, N at most 32; the same arguments give the same bits), or "auto": "scan" on CPU,
            "mosaic" where it is known to run, "associative" elsewhere. What "auto" is follows from
            the machine that traces the function: name "mosaic" to export or compile for another
            one. Forward-mode differentiation works in "reference" and "associative" only.
            `jax.vmap` works in all; where it maps A, D or delta_bias, "mosaic" takes one at a time.

    Returns:
        y, or (y, final state).

    Raises:
        ValueError: a shape, a dtype or the implementation's name does not fit; "mosaic" was asked
            for, and the sizes or the machine that is to run it do not allow it.
    """
    check_arguments(u, delta, A, B, C, D, z, delta_bias, initial_state, reset, mask)
    check_implementation("selective_scan", implementation, IMPLEMENTATIONS)
    if implementation == "auto":
        implementation, reason = choose_implementation(*A.shape)
        log_choice("selective_scan", implementation, reason)
    if initial_state is None:
        initial_state = jnp.zeros((u.shape[0], *A.shape), jnp.float32)
    arguments = Arguments(u, delta, A, B, C, D, z, delta_bias, softplus, initial_state, reset, mask)
    y, final_state = IMPLEMENTATIONS[implementation](arguments)
    return (y, final_state) if return_final_state else y


def check_arguments(
    u: jax.Array,
    delta: jax.Array,
    A: jax.Array,
    B: jax.Array,
    C: jax.Array,
    D: jax.Array | None,
    z: jax.Array | None,
    delta_bias: jax.Array | None,
    initial_state: jax.Array | None,
    reset: jax.Array | None,
    mask: jax.Array | None,
) -> None:
    """Raise ValueError, naming the argument, if shapes or dtypes do not fit each other."""
    check_rank("u", u, "B L D")
    check_rank("A", A, "D N")
    batch, length, channels = u.shape
    states = A.shape[1]
    check_array("u", u, u.shape)
    check_array("A", A, (channels, states))
    for name, per_channel in (("delta", delta), ("z", z)):
        check_array(name, per_channel, u.shape)
    for name, per_state in (("B", B), ("C", C)):
        check_array(name, per_state, (batch, length, states))
    for name, weight in (("D", D), ("delta_bias", delta_bias)):
        check_array(name, weight, (channels,))
    check_array("initial_state", initial_state, (batch, channels, states), jnp.float32)
    for name, mark in (("reset", reset), ("mask", mask)):
        check_array(name, mark, (batch, length), jnp.bool_)
