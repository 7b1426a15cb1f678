"""The public `ssd`: its contract, its checks, and the choice of an implementation.

Letters beside those of `jaxrank.shapes` (Dao and Gu 2024, "Transformers are SSMs", arXiv
2405.21060, section 7 and figure 6):

    H      heads, whose P channels share one decay and one step size
    G      groups of H / G neighbouring heads, which share B and C
    x      the input of each channel           dt     the step size of a head, after softplus
    A      the decay of a head, negative       B, C   what is written to, read from the states
    D      the skip connection of a head       h      the states

It is the recurrence of `selective_scan` with one decay a head instead of one a channel and state.
That is what lets a stretch of tokens be computed by matrix products.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxrank.ops.arguments import check_array, check_implementation, check_rank, log_choice
from jaxrank.ops.ssd.chunked import ssd_chunked
from jaxrank.ops.ssd.reference import Arguments, ssd_reference
from jaxrank.shapes import Array, Bool, Float, Float32

IMPLEMENTATIONS: dict[str, Callable[[Arguments], tuple[jax.Array, jax.Array]]] = {
    "reference": ssd_reference,
    "chunked": ssd_chunked,
}

# A chunk costs a matrix with as many terms a token as it has tokens, and saves a state a chunk.
# CPU: of 32, 64 and 128 the smallest was the fastest on two cores. Elsewhere memory is what limits:
# for each token and head 128 states (N) of 64 channels (P) cost 12 N P / chunk bytes (written and
# read, in float32 and as a factor in bfloat16) and the matrix 4 chunk, which balance at 157.
CPU_CHUNK = 32
ACCELERATOR_CHUNK = 128

# On CPU one chunk after the other stays in the cache. Elsewhere chunks are computed together until
# their matrices, were they in float32, take this: a layer of 370m's width then computes 8,192
# tokens at once, enough for thousands of matrix products side by side, in a few hundred MiB. Of a
# batch that is spread over devices all sequences count, so each device takes its share of this.
ACCELERATOR_MATRICES_BYTES = 128 * 2**20


def ssd(
    x: Float[Array, "B L H P"],
    dt: Float[Array, "B L H"],
    A: Float[Array, " H"],
    B: Float[Array, "B L G N"],
    C: Float[Array, "B L G N"],
    *,
    D: Float[Array, " H"] | None = None,
    chunk: int | None = None,
    chunks_at_once: int | None = None,
    initial_state: Float32[Array, "B H P N"] | None = None,
    reset: Bool[Array, "B L"] | None = None,
    mask: Bool[Array, "B L"] | None = None,
    return_final_state: bool = False,
    implementation: str = "auto",
) -> Float[Array, "B L H P"] | tuple[Float[Array, "B L H P"], Float32[Array, "B H P N"]]:
    """Run Mamba-2's recurrence over the tokens of each sequence, each head on its own.

        h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t^T    (P, N)
        y_t = h_t C_t + D x_t                         (P,)

    with B and C of the head's group. States, decays and sums are float32; `y` has x's dtype. The
    matrix products of "chunked" and of its gradient take their factors in x's dtype (each is
    rounded once), and multiply float32 in the precision that JAX is set to. Gradients flow to every
    array but `reset` and `mask`, from `y` and from the final state.

    Args:
        x, dt: the inputs of each channel, the step sizes of each head; steps are not negative.
        A: negative; B, C: shared by the heads of a group, G divides H.
        D: one number a head.
        chunk: tokens that "chunked" computes at once; at most the sequence, and by default 32 on
            CPU, 128 elsewhere. Any length is padded inside.
        chunks_at_once: chunks of each sequence that "chunked" computes together, which takes more
            memory and fewer steps; by default 1 on CPU, elsewhere what makes 128 MiB of matrices.
        initial_state: the state before the first token; zeros if None.
        reset: at a True position everything before it is forgotten, `initial_state` too.
        mask: a False position is as if absent: it does not change the state, its reset does not
            count, nothing of it (not even a NaN) reaches any output or gradient; its y is 0.
        return_final_state: also return the state after the last token, which continues the
            sequence when it comes back as `initial_state`.
        implementation: "reference" (one token at a time, the specification), "chunked" (matrix
            products over chunks, computed again in the backward pass), or "auto": "chunked".

    Returns:
        y, or (y, final state).

    Raises:
        ValueError: a shape, a dtype, the chunk or the implementation's name does not fit.
    """
    check_arguments(x, dt, A, B, C, D, chunk, chunks_at_once, initial_state, reset, mask)
    check_implementation("ssd", implementation, IMPLEMENTATIONS)
    if implementation == "auto":
        implementation = "chunked"
        log_choice("ssd", implementation)
    batch, _, heads, channels = x.shape
    on_cpu = jax.default_backend() == "cpu"
    if chunk is None:
        chunk = CPU_CHUNK if on_cpu else ACCELERATOR_CHUNK
    if chunks_at_once is None:
        bytes_of_one = 4 * batch * heads * chunk**2
        chunks_at_once = 1 if on_cpu else max(1, ACCELERATOR_MATRICES_BYTES // bytes_of_one)
    if initial_state is None:
        initial_state = jnp.zeros((batch, heads, channels, B.shape[3]), jnp.float32)
    arguments = Arguments(x, dt, A, B, C, D, chunk, chunks_at_once, initial_state, reset, mask)
    y, final_state = IMPLEMENTATIONS[implementation](arguments)
    return (y, final_state) if return_final_state else y


def check_arguments(
    x: jax.Array,
    dt: jax.Array,
    A: jax.Array,
    B: jax.Array,
    C: jax.Array,
    D: jax.Array | None,
    chunk: int | None,
    chunks_at_once: int | None,
    initial_state: jax.Array | None,
    reset: jax.Array | None,
    mask: jax.Array | None,
) -> None:
    """Raise ValueError, naming the argument, if shapes or dtypes do not fit each other."""
    check_rank("x", x, "B L H P")
    check_rank("B", B, "B L G N")
    batch, length, heads, channels = x.shape
    groups, states = B.shape[2:]
    check_array("x", x, x.shape)
    check_array("dt", dt, (batch, length, heads))
    for name, weight in (("A", A), ("D", D)):
        check_array(name, weight, (heads,))
    for name, per_group in (("B", B), ("C", C)):
        check_array(name, per_group, (batch, length, groups, states))
    if heads % groups:
        raise ValueError(f"B: {groups} groups came; a divisor of the {heads} heads is needed")
    for name, size in (("chunk", chunk), ("chunks_at_once", chunks_at_once)):
        if size is not None and size < 1:
            raise ValueError(f"{name}: {size} came; at least 1 is needed")
    check_array("initial_state", initial_state, (batch, heads, channels, states), jnp.float32)
    for name, mark in (("reset", reset), ("mask", mask)):
        check_array(name, mark, (batch, length), jnp.bool_)
