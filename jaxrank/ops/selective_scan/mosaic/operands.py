"""What the Mosaic kernels of `selective_scan` share: their operands, and pieces of their bodies.

A block of threads, one warpgroup of 128, takes `BLOCK` channels of one sequence (or twice as many,
two a thread) and goes through the tokens in order; each thread keeps the N states of its channels
in registers. Shared memory holds a few tokens at a time, copied in while the ones before them are
worked on. Kernels see float32 only: bfloat16 is a matter of what lies in memory.
"""

import inspect
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.pallas import mosaic_gpu as plgpu

THREADS = 128  # of a block: one warpgroup
BLOCK = 128  # channels of a block at one channel a thread; D is a multiple

# Tokens between two kept states; L is a multiple. States kept take 4 B L D N / KEEP_EVERY bytes: at
# N = 16 as much as four of u, delta, z and y in bfloat16. Written and read beside the arithmetic,
# which takes longer, they cost memory, not time. With 16 tokens the backward kernel, which holds a
# chunk of them in registers, could not take two channels a thread: 10% more instructions, and
# twice the traffic of shared memory, which would then take as long as all of these.
KEEP_EVERY = 8

# Added to step * log2(e) at a reset. A is negative, so exp2(A * 1e30) underflows to exactly 0.
RESET_EXPONENT = 1e30

LOG2E = math.log2(math.e)


class Operands(NamedTuple):
    """What the kernels read. L is padded; absent tokens are neutral already.

    An absent token has u, B, C, z of 0 and a step of exactly 0: a delta of ABSENT_DELTA under
    softplus, of 0 without. Without softplus `delta_bias` is zeros, and delta is the step.
    """

    u: jax.Array  # (B, L, D) bfloat16 or float32; delta and z may have the other one of the two
    delta: jax.Array  # (B, L, D)
    z: jax.Array | None  # (B, L, D)
    A: jax.Array  # (N, D) float32, negative
    B: jax.Array  # (B, L, N) float32
    C: jax.Array  # (B, L, N) float32
    D: jax.Array  # (D,) float32
    delta_bias: jax.Array  # (D,) float32
    forget: jax.Array | None  # (B, L) float32: RESET_EXPONENT at a reset, else 0


# softplus of it is exactly 0 whatever the bias, and it is finite in bfloat16.
ABSENT_DELTA = -1e30


def absent_delta(*, softplus: bool) -> float:
    """The delta of an absent token, whose step is exactly 0."""
    return ABSENT_DELTA if softplus else 0.0


def channel_layout(channels_per_thread: int = 1) -> Any:
    """Of one value a channel: neighbouring threads hold neighbouring channels."""
    return plgpu.Layout.WG_STRIDED((THREADS * channels_per_thread,), vec_size=channels_per_thread)


# jax 0.10 wants an index, 0.11 warns of one, 0.12 takes none.
_INDEX = inspect.signature(plgpu.load).parameters.get("idx")
_LOAD_TAKES_INDEX = _INDEX is not None and _INDEX.default is inspect.Parameter.empty


def load(ref: Any, layout: Any) -> jax.Array:
    """Load one value a channel, as float32, from shared or global memory: `ref.at[...]`, 1-D."""
    index = ((),) if _LOAD_TAKES_INDEX else ()
    loaded = plgpu.load(ref, *index, layout=layout, optimized=False)
    return loaded.astype(jnp.float32)


def reciprocal(x: jax.Array) -> jax.Array:
    """1 / x for x > 0, to 3e-7: two instructions, where a correctly rounded division takes ten."""
    root = jax.lax.rsqrt(x)
    return root * root


def sigmoid(x: jax.Array) -> jax.Array:
    """1 / (1 + exp(-x)), by exp2: that is what the special-function unit computes."""
    return reciprocal(1.0 + jnp.exp2(-LOG2E * x))


# 2 atanh(s) / s as a polynomial in s^2, interpolated at the Chebyshev nodes of [0, 1/9]: 4e-9 off.
_ATANH = (2.000000008, 0.666663216, 0.400245952, 0.279651578, 0.281577783)


def softplus(x: jax.Array) -> jax.Array:
    """log(1 + exp(x)) to a few float32 roundings of its own size, without a branch.

    log1p(e) = 2 atanh(e / (2 + e)), e <= 1. The unit's own logarithm is exact only to 2^-22 of 1,
    and a step of 1e-3 is log(1.001): the textbook log2(1 + e) is 6e-5 off there.
    """
    e = jnp.exp2(-LOG2E * jnp.abs(x))
    s = e * reciprocal(2.0 + e)
    square = s * s
    series = square * _ATANH[-1] + _ATANH[-2]
    for coefficient in reversed(_ATANH[:-2]):
        series = series * square + coefficient
    return jnp.maximum(x, 0.0) + s * series


def compiler_params() -> Any:
    """Lane semantics, and no barrier but our own: the automatic ones stand at every access.

    So a kernel must say `commit_smem` between writing shared memory and copying from it, and must
    have one between reading a slot and copying into it.
    """
    return plgpu.CompilerParams(
        approx_math=True,
        unsafe_no_auto_barriers=True,
        lowering_semantics=plgpu.LoweringSemantics.Lane,
    )


def interpreting(interpret: Any) -> dict[str, Any]:
    """The keyword of `plgpu.kernel` that interprets it (jax >= 0.11), if asked for."""
    return {} if interpret is None else {"interpret": interpret}
