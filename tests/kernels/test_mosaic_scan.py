"""The kernels of `selective_scan`, interpreted, against the specification in float64.

Interpretation fills memory that nothing has written with NaN, so whatever a kernel leaves unwritten
shows as NaN. What it cannot see (registers, barriers) is read off the compiled kernels by
`test_h200_resources.py`.
"""

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import mosaic_gpu as plgpu

from jaxrank.ops.oracle import largest_error
from jaxrank.ops.selective_scan import IMPLEMENTATIONS
from jaxrank.ops.selective_scan.mosaic import forward, selective_scan_mosaic, split
from jaxrank.ops.selective_scan.mosaic.operands import KEEP_EVERY
from jaxrank.ops.selective_scan.reference import selective_scan_reference
from jaxrank.ops.selective_scan.tokens import Arguments
from tests.ops.selective_scan_cases import (
    PER_TOKEN,
    differentiable,
    make_arguments,
    make_cotangents,
    to_jax,
    without_softplus,
)

# As in the suite of the other implementations; measured: 2e-6 at worst.
FLOAT32 = 1e-5
# Outputs round to bfloat16 at 2^-9 = 2e-3.
BFLOAT16 = 2e-2

IMPLEMENTATION = "mosaic"  # whose suite this is

BY_TOKEN = (*PER_TOKEN, "mask", "reset")
# Lengths that the specification is compiled for.
SIZES = (24, 100)

Values = tuple[jax.Array, jax.Array]
NOTHING: dict = dict.fromkeys(("D", "z", "delta_bias", "initial_state", "reset", "mask"))


def make(length: int, rows: tuple[str, ...] = ("holes",), states: int = 4, **options) -> dict:
    return make_arguments(length, rows=rows, channels=128, states=states, **options)


def interpret(arrays: dict, *, softplus: bool = True, segments: int = 1) -> Values:
    """Return y and the final state."""
    if arrays.get("initial_state") is None:
        state = (len(arrays["u"]), *arrays["A"].shape)
        arrays = arrays | {"initial_state": jnp.zeros(state, jnp.float32)}
    arguments = Arguments(**NOTHING | arrays, softplus=softplus)
    return selective_scan_mosaic(
        arguments, segments=segments, interpret=plgpu.InterpretGPUParams(uninitialized_memory="nan")
    )


def with_gradients(
    scan: Callable[[dict], Values], arrays: dict, cotangents: tuple
) -> tuple[Values, dict]:
    moving = {name: arrays[name] for name in differentiable(arrays)}
    values, pull = jax.vjp(lambda moving: scan(arrays | moving), moving)
    return values, pull(cotangents)[0]


# Interpretation takes its time in Python; XLA had better not spend any on making it fast.
HASTY = {"xla_backend_optimization_level": 0}


@functools.partial(jax.jit, static_argnames=("softplus", "segments"), compiler_options=HASTY)
def run(arrays: dict, cotangents: tuple, **how) -> tuple[Values, dict]:
    """Return (y, final state) and the gradients by name."""
    return with_gradients(functools.partial(interpret, **how), arrays, cotangents)


@functools.partial(jax.jit, static_argnames="softplus", compiler_options=HASTY)
def run_reference(arrays: dict, cotangents: tuple, *, softplus: bool) -> tuple[Values, dict]:
    def reference(arrays: dict) -> Values:
        state = jnp.zeros((len(arrays["u"]), *arrays["A"].shape))
        arguments = Arguments(**NOTHING | {"initial_state": state} | arrays, softplus=softplus)
        return selective_scan_reference(arguments, jnp.float64)

    return with_gradients(reference, arrays, cotangents)


def expect(arrays: dict, cotangents: tuple, *, softplus: bool = True) -> tuple[Values, dict]:
    """What the specification gives in float64.

    Where there is a mask, absent tokens make the sequence longer: so several lengths share one
    compiled function.
    """
    length = arrays["u"].shape[1]
    more = next(size for size in SIZES if size >= length) - length if "mask" in arrays else 0

    def widen(name: str, x: jax.Array) -> jax.Array:
        x = x if x.dtype == bool else jnp.asarray(np.asarray(x, np.float64))
        padding = [(0, 0), (0, more)] + [(0, 0)] * (x.ndim - 2)
        return jnp.pad(x, padding) if name in BY_TOKEN else x

    with jax.enable_x64(True):
        wide = {name: widen(name, x) for name, x in arrays.items()}
        y_bar, state_bar = widen("u", cotangents[0]), widen("state", cotangents[1])
        (y, state), gradients = run_reference(wide, (y_bar, state_bar), softplus=softplus)
        short = {name: x[:, :length] if name in BY_TOKEN else x for name, x in gradients.items()}
        return (y[:, :length], state), short


def check(arguments: dict, *, dtype: type = jnp.float32, **how) -> None:
    """Values and every gradient are those of the specification."""
    arrays = to_jax(arguments, dtype)
    y_bar, state_bar = make_cotangents(arguments)
    cotangents = jnp.asarray(y_bar, dtype), jnp.asarray(state_bar, jnp.float32)
    results = run(arrays, cotangents, **how)
    check_results(results, arrays, cotangents, **how)


def check_results(results: tuple[Values, dict], arrays: dict, cotangents: tuple, **how) -> None:
    dtype = arrays["u"].dtype
    got, got_gradients = results
    want, gradients = expect(arrays, cotangents, softplus=how.get("softplus", True))
    assert got[0].dtype == dtype
    for name, have, value in zip(("y", "final state"), got, want, strict=True):
        tolerance = BFLOAT16 if name == "y" and dtype == jnp.bfloat16 else FLOAT32
        assert largest_error(have, np.asarray(value)) < tolerance, name
    for name, gradient in gradients.items():
        assert got_gradients[name].dtype == arrays[name].dtype
        tolerance = BFLOAT16 if name in PER_TOKEN and dtype == jnp.bfloat16 else FLOAT32
        assert largest_error(got_gradients[name], np.asarray(gradient)) < tolerance, name


@pytest.mark.parametrize("length", [1, 15, 16, 17])
def test_values_and_every_gradient_equal_the_specification(length: int):
    check(make(length))


def test_sixteen_states_of_rows_with_every_kind_of_mark():
    check(make(9, rows=("all masked", "resets"), states=16))


def test_nothing_optional_in_512_tokens():
    check(make(512, full=False))


def test_steps_without_softplus_and_an_odd_number_of_states():
    check(without_softplus(make(11, states=3)), softplus=False)


def test_bfloat16_inputs_are_computed_in_float32():
    check(make(17), dtype=jnp.bfloat16)


def test_100_tokens_equal_the_specification_split_and_unsplit():
    arrays = to_jax(make(100))
    cotangents = to_jax_floats(make_cotangents(arrays))
    whole = run(arrays, cotangents)
    check_results(whole, arrays, cotangents)
    # Segments of 40 tokens; of the last one's, the last half is padding.
    assert split.cut(104, 3) == (3, 40)
    cut = run(arrays, cotangents, segments=3)
    for one, other in zip(*map(jax.tree.leaves, (whole, cut)), strict=True):
        assert largest_error(other, np.asarray(one, np.float64)) < 2e-6


def test_packed_sequences_equal_separate_ones():
    # 9 and 8 tokens: together they are as many as in another test, which has been compiled.
    separate = make(9, rows=("plain", "plain"))
    separate["mask"][1, 8:] = False
    separate["initial_state"][:] = 0.0  # a reset forgets it
    cotangents = make_cotangents(separate)
    real = np.arange(17)

    def pack(x: np.ndarray) -> np.ndarray:
        return x.reshape(1, -1, *x.shape[2:])[:, real]

    packed = separate | {name: pack(separate[name]) for name in (*PER_TOKEN, "mask", "reset")}
    packed["initial_state"] = separate["initial_state"][:1]
    packed["reset"][0, [0, 9]] = True
    packed_cotangents = pack(cotangents[0]), cotangents[1][1:]
    cotangents[1][0] = 0.0  # there is one final state only, that of the last sequence

    apart, apart_gradients = run(to_jax(separate), to_jax_floats(cotangents))
    together, gradients = run(to_jax(packed), to_jax_floats(packed_cotangents))
    assert largest_error(together[0], pack(np.asarray(apart[0], np.float64))) < 1e-6
    assert largest_error(together[1], np.asarray(apart[1][1:], np.float64)) < 1e-6
    for name, gradient in gradients.items():
        want = np.asarray(apart_gradients[name], np.float64)
        if name != "initial_state":
            want = pack(want) if name in PER_TOKEN else want
            assert largest_error(gradient, want) < 2e-6, name
    assert not np.any(gradients["initial_state"])


def to_jax_floats(arrays: tuple) -> tuple[jax.Array, ...]:
    return tuple(jnp.asarray(array, jnp.float32) for array in arrays)


def test_nothing_in_an_absent_position_reaches_anything():
    arrays = to_jax(make(17))
    cotangents = to_jax_floats(make_cotangents(arrays))
    absent = ~arrays["mask"][:, :, None]
    poisoned = arrays | {name: jnp.where(absent, jnp.nan, arrays[name]) for name in PER_TOKEN}
    poisoned_bars = jnp.where(absent, jnp.nan, cotangents[0]), cotangents[1]
    clean, got = run(arrays, cotangents), run(poisoned, poisoned_bars)
    jax.tree.map(np.testing.assert_array_equal, got, clean)
    assert not np.any(np.where(absent, got[0][0], 0.0))


def test_steps_of_any_size_stay_accurate():
    delta = np.broadcast_to(np.linspace(-20.0, 20.0, 128), (1, 8, 128))
    ones = jnp.ones((1, 8, 128))
    # A reset everywhere leaves y = softplus(delta), whose relative error counts.
    y, _ = jax.jit(interpret, compiler_options=HASTY)(
        {
            "u": ones,
            "delta": jnp.asarray(delta, jnp.float32),
            "A": -jnp.ones((128, 4)),
            "B": ones[:, :, :4] / 4,
            "C": ones[:, :, :4],
            "reset": jnp.ones((1, 8), bool),
        }
    )
    wide = np.asarray(jnp.asarray(delta, jnp.float32), np.float64)
    np.testing.assert_allclose(y, np.log1p(np.exp(wide)), rtol=1e-6)


def test_two_channels_a_thread_give_the_same_bits_as_one(monkeypatch: pytest.MonkeyPatch):
    arrays = to_jax(make_arguments(9, rows=("holes",), channels=256, states=4))

    def run_forward() -> Values:
        return jax.jit(lambda arrays: interpret(arrays), compiler_options=HASTY)(arrays)

    one = run_forward()
    monkeypatch.setattr(forward, "BLOCKS_FOR_TWO_CHANNELS", 1)
    assert forward.channels_per_thread(1, 256, 4) == 2
    jax.tree.map(np.testing.assert_array_equal, run_forward(), one)


def test_no_array_of_all_states_of_all_tokens_is_ever_in_memory():
    batch, length, channels, states = 2, 512, 256, 16
    arrays = to_jax(make_arguments(length, rows=("holes",) * 2, channels=channels, states=states))

    def loss(arrays: dict) -> jax.Array:
        arguments = Arguments(**NOTHING | arrays, softplus=True)
        return jnp.sum(IMPLEMENTATIONS[IMPLEMENTATION](arguments)[0])

    moving = {name: arrays[name] for name in differentiable(arrays)}
    closed = jax.make_jaxpr(jax.grad(lambda moving: loss(arrays | moving)))(moving)
    largest = max(int(np.prod(shape)) for shape in shapes_in(closed.jaxpr))
    kept = batch * length // KEEP_EVERY * channels * states
    assert kept <= largest <= max(kept, batch * length * channels)


def shapes_in(jaxpr: jax.extend.core.Jaxpr) -> Iterator[tuple[int, ...]]:
    """Of all arrays that a function makes, those of the functions inside included."""
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            yield tuple(getattr(variable.aval, "shape", ()))
        for value in jax.tree.leaves(
            equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from shapes_in(inner)


def test_few_sequences_are_cut_and_many_are_not():
    assert split.choose_segments(64, 512, 2048) == (1, 512)
    count, length = split.choose_segments(1, 8192, 1536)
    assert count * 1536 // 128 >= split.BLOCKS_WANTED
    assert length % KEEP_EVERY == 0
    assert (count - 1) * length < 8192 <= count * length
    assert split.choose_segments(1, 200, 1536) == (1, 200)
