"""The backward kernel of the scan, interpreted, against autodiff of a loop over tokens."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental.pallas import mosaic_gpu as plgpu

from jaxrank.ops.oracle import largest_error
from jaxrank.ops.selective_scan.mosaic.backward import (
    Cotangents,
    channels_per_thread,
    run_backward,
)
from jaxrank.ops.selective_scan.mosaic.operands import (
    ABSENT_DELTA,
    KEEP_EVERY,
    RESET_EXPONENT,
    Operands,
)

TOLERANCE = {jnp.float32: 1e-5, jnp.bfloat16: 2e-2}


class Case(NamedTuple):
    """What is differentiated, with which cotangents of y and the final state."""

    operands: Operands
    initial_state: jax.Array
    y_bar: jax.Array
    state_bar: jax.Array
    softplus: bool


def make_case(
    *,
    batch=1,
    length=KEEP_EVERY,
    channels=128,
    states=4,
    dtype=jnp.float32,
    gate=True,
    softplus=True,
    resets=True,
    absent=(),
) -> Case:
    random = np.random.default_rng(0)

    def normal(*shape):
        return random.standard_normal(shape).astype(np.float32)

    by_channel = (batch, length, channels)
    u, delta, z = normal(*by_channel), normal(*by_channel) - 1.0, normal(*by_channel)
    B, C = normal(batch, length, states), normal(batch, length, states)
    if not softplus:
        delta = np.log1p(np.exp(delta))
    for array in (u, z, B, C):
        array[:, absent] = 0.0
    delta[:, absent] = ABSENT_DELTA if softplus else 0.0
    forget = np.where(random.random((batch, length)) < 0.2, np.float32(RESET_EXPONENT), 0.0)
    operands = Operands(
        u=jnp.asarray(u, dtype),
        delta=jnp.asarray(delta, dtype),
        z=jnp.asarray(z, dtype) if gate else None,
        A=-jnp.exp(normal(states, channels)),
        B=jnp.asarray(B),
        C=jnp.asarray(C),
        D=jnp.asarray(normal(channels)),
        delta_bias=jnp.asarray(normal(channels)) if softplus else jnp.zeros(channels),
        forget=jnp.asarray(forget, jnp.float32) if resets else None,
    )
    state, state_bar = normal(batch, states, channels), normal(batch, states, channels)
    y_bar = jnp.asarray(normal(*by_channel), dtype)
    return Case(operands, jnp.asarray(state), y_bar, jnp.asarray(state_bar), softplus)


def loop(
    operands: Operands, initial_state: jax.Array, forget: jax.Array | None, *, softplus: bool
) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    """Return (y, final state), and the kept states."""
    u, delta, z, A, B, C, D, delta_bias, _ = operands
    u, delta = u.astype(jnp.float32), delta.astype(jnp.float32)
    forgets = jnp.zeros(u.shape[:2], bool) if forget is None else forget > 0

    def step(h, token):
        u, delta, B, C, forgets = token
        step = delta + delta_bias[None, :]
        if softplus:
            step = jax.nn.softplus(step)
        decay = jnp.where(forgets[:, None, None], 0.0, jnp.exp(step[:, None, :] * A[None, :, :]))
        after = decay * h + (step * u)[:, None, :] * B[:, :, None]
        return after, (jnp.sum(after * C[:, :, None], axis=1) + D[None, :] * u, h)

    by_time = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), (u, delta, B, C, forgets))
    final_state, (y, before) = lax.scan(step, initial_state, by_time)
    y, before = jnp.swapaxes(y, 0, 1), jnp.swapaxes(before, 0, 1)
    if z is not None:
        y = y * jax.nn.silu(z.astype(jnp.float32))
    return (y.astype(operands.u.dtype), final_state), before[:, ::KEEP_EVERY]


@functools.partial(jax.jit, static_argnames="softplus")
def expected(
    operands: Operands,
    initial_state: jax.Array,
    y_bar: jax.Array,
    state_bar: jax.Array,
    *,
    softplus: bool,
) -> tuple[Cotangents, jax.Array]:
    """Return what autodiff gives, and the kept states."""
    smooth = operands._replace(forget=None)
    _, pull, kept = jax.vjp(
        functools.partial(loop, forget=operands.forget, softplus=softplus),
        smooth,
        initial_state,
        has_aux=True,
    )
    bars, state = pull((y_bar, state_bar))
    return Cotangents(*bars[:-1], state), kept


@functools.partial(
    jax.jit,
    static_argnames=("softplus", "per_thread"),
    compiler_options={"xla_backend_optimization_level": 0},  # the time goes into Python
)
def run(
    operands: Operands,
    kept: jax.Array,
    y_bar: jax.Array,
    state_bar: jax.Array,
    *,
    softplus: bool,
    per_thread: int,
) -> Cotangents:
    """Interpret the kernel."""
    return run_backward(
        operands,
        kept,
        y_bar,
        state_bar,
        softplus=softplus,
        per_thread=per_thread,
        interpret=plgpu.InterpretGPUParams(),
    )


def check(case: Case, *, per_thread: int = 1) -> None:
    operands, initial_state, y_bar, state_bar, softplus = case
    want, kept = expected(operands, initial_state, y_bar, state_bar, softplus=softplus)
    got = run(operands, kept, y_bar, state_bar, softplus=softplus, per_thread=per_thread)
    tolerance = TOLERANCE[operands.u.dtype.type]
    for name, bar in want._asdict().items():
        if bar is None:
            assert getattr(got, name) is None
        else:
            have = getattr(got, name)
            assert have.dtype == bar.dtype, name
            # The kernel tells the rows' shares of what they have in common.
            have = np.sum(have, axis=0) if name in ("A", "D", "delta_bias") else have
            error = largest_error(have, np.asarray(bar, np.float64))
            assert error <= tolerance, (name, error)


def test_two_rows_of_two_blocks_and_three_chunks_have_the_cotangents_of_a_loop():
    check(make_case(batch=2, channels=256, length=3 * KEEP_EVERY, absent=(0, 9, -1)))


def test_two_channels_a_thread_have_the_cotangents_of_a_loop():
    check(make_case(channels=512, length=2 * KEEP_EVERY, states=8), per_thread=2)


def test_bfloat16_has_the_cotangents_of_a_loop():
    check(make_case(absent=(3,), dtype=jnp.bfloat16))


def test_without_gate_softplus_and_resets_the_cotangents_are_those_of_a_loop():
    check(make_case(gate=False, softplus=False, resets=False, absent=(0, 3, -1)))


@pytest.mark.parametrize(
    ("batch", "channels", "dtype", "expected"),
    [
        (33, 2048, jnp.bfloat16, 2),
        (32, 2048, jnp.bfloat16, 1),  # 256 blocks for 132 multiprocessors
        (99, 128 * 7, jnp.bfloat16, 1),  # not a multiple of 256
        (33, 2048, jnp.float32, 1),  # no room for a second block
    ],
)
def test_a_thread_takes_two_channels_where_two_blocks_a_processor_remain(
    batch, channels, dtype, expected
):
    by_channel = jnp.zeros((batch, KEEP_EVERY, channels), dtype)
    inputs = dict.fromkeys(("u", "delta", "y_bar", "z"), by_channel)
    inputs |= {"A": jnp.zeros((16, channels)), "shared": jnp.zeros((batch, 1, 36, KEEP_EVERY))}
    assert channels_per_thread(inputs) == expected
