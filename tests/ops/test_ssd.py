"""One suite for all implementations of `ssd`, against the float64 oracle."""

import functools
import inspect
import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrank.ops import arguments
from jaxrank.ops.oracle import largest_error, oracle_gradients, ssd_oracle
from jaxrank.ops.selective_scan import selective_scan
from jaxrank.ops.ssd import IMPLEMENTATIONS, ssd

# float32 rounds at 6e-8; up to 39 dependent steps and sums over up to 240 tokens make 4e-7 of it
# at worst, as measured. A wrong term shows as 1e-2 or more.
FLOAT32 = 4e-6
# bfloat16 rounds at 2^-9 = 2e-3: the outputs, and once each the factors of the matrix products
# (measured: 5e-3 at worst).
BFLOAT16 = 1e-2

ROWS = ("plain", "tail masked", "all masked", "resets", "holes", "left padded")
HEADS, CHANNELS, GROUPS, STATES = 4, 3, 2, 5
PER_TOKEN = ("x", "dt", "B", "C")


def make_arguments(length: int, *, full: bool = True, seed: int = 0) -> dict:
    """Arguments in float64; with `full`, each row of the batch has the marks that ROWS names."""
    random = np.random.default_rng(seed)
    batch = len(ROWS)
    normal = random.standard_normal
    made = {
        "x": normal((batch, length, HEADS, CHANNELS)),
        "dt": np.log1p(np.exp(normal((batch, length, HEADS)) - 1.0)),
        "A": -np.exp(normal(HEADS)),
        "B": normal((batch, length, GROUPS, STATES)),
        "C": normal((batch, length, GROUPS, STATES)),
    }
    if not full:
        return made
    made |= {"D": normal(HEADS), "initial_state": normal((batch, HEADS, CHANNELS, STATES))}
    mask = np.ones((batch, length), bool)
    mask[1, -(length // 3) - 1 :] = False
    mask[2] = False
    mask[4] = random.random(length) < 0.6
    mask[5, : length // 2] = False
    reset = np.zeros((batch, length), bool)
    reset[3, [0, length // 2, -1]] = True
    reset[4] = random.random(length) < 0.2
    reset[[1, 2, 5], length // 3] = True
    return made | {"mask": mask, "reset": reset}


def differentiable(arguments: dict) -> list[str]:
    return [name for name in arguments if name not in ("mask", "reset")]


def make_cotangents(arguments: dict) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(99)
    batch, _, heads, channels = arguments["x"].shape
    states = random.standard_normal((batch, heads, channels, arguments["B"].shape[3]))
    return random.standard_normal(arguments["x"].shape), states


@functools.cache
def oracle_case(length: int, full: bool) -> tuple:
    arguments = make_arguments(length, full=full)
    cotangents = make_cotangents(arguments)
    gradients = oracle_gradients(ssd_oracle, arguments, differentiable(arguments), cotangents)
    return arguments, cotangents, ssd_oracle(**arguments), gradients


@functools.cache
def bfloat16_case(length: int) -> tuple:
    """Inputs and cotangents in bfloat16, and what the oracle makes of exactly these numbers."""
    arguments = make_arguments(length)
    inputs = to_jax(arguments, jnp.bfloat16)
    exact = {name: np.asarray(value) for name, value in inputs.items()}
    exact |= {name: np.asarray(inputs[name], np.float64) for name in PER_TOKEN}
    y_bar, state_bar = make_cotangents(arguments)
    y_bar = jnp.asarray(y_bar, jnp.bfloat16)
    names = differentiable(arguments)
    gradients = oracle_gradients(
        ssd_oracle, exact, names, (np.asarray(y_bar, np.float64), state_bar)
    )
    return inputs, (y_bar, jnp.asarray(state_bar, jnp.float32)), ssd_oracle(**exact), gradients


def to_jax(arguments: dict, dtype: type = jnp.float32) -> dict:
    """Floats per token in `dtype`, other floats in float32, booleans as they are."""
    made = {name: jnp.asarray(value) for name, value in arguments.items()}
    for name in differentiable(arguments):
        made[name] = made[name].astype(dtype if name in PER_TOKEN else jnp.float32)
    return made


OPTIONS = ("implementation", "chunk", "chunks_at_once")


@functools.partial(jax.jit, static_argnames=OPTIONS)
def run(**arrays_and_options: Any) -> tuple:
    """Return y and the final state."""
    return ssd(**arrays_and_options, return_final_state=True)


@functools.partial(jax.jit, static_argnames=OPTIONS)
def run_with_gradients(arrays: dict, cotangents: tuple, **options: Any) -> tuple[tuple, dict]:
    """Return (y, final state) and the gradients by name."""
    moving = {name: arrays[name] for name in differentiable(arrays)}
    fixed = {name: arrays[name] for name in arrays if name not in moving}
    values, pull = jax.vjp(lambda moving: run(**moving, **fixed, **options), moving)
    return values, pull(cotangents)[0]


def check_against_oracle(length: int, *, full: bool = True, **options: Any) -> None:
    arguments, cotangents, values, gradients = oracle_case(length, full)
    got, got_gradients = run_with_gradients(
        to_jax(arguments), tuple(jnp.asarray(c, jnp.float32) for c in cotangents), **options
    )
    for name, have, want in zip(("y", "final state"), got, values, strict=True):
        assert largest_error(have, want) < FLOAT32, name
    for name, want in gradients.items():
        assert largest_error(got_gradients[name], want) < FLOAT32, name


class SSDSuite:
    implementation: str
    chunk: int | None = None

    @property
    def options(self) -> dict[str, Any]:
        return {"implementation": self.implementation, "chunk": self.chunk}

    @pytest.mark.parametrize(("length", "full"), [(1, True), (2, True), (16, False), (39, True)])
    def test_values_and_every_gradient_equal_the_oracle(self, length: int, full: bool):
        check_against_oracle(length, full=full, **self.options)

    def test_bfloat16_inputs_keep_float32_states_and_sums(self):
        inputs, cotangents, (want_y, want_state), gradients = bfloat16_case(11)
        (y, state), got = run_with_gradients(inputs, cotangents, **self.options)
        assert y.dtype == jnp.bfloat16
        assert state.dtype == jnp.float32
        assert largest_error(y, want_y) < BFLOAT16
        assert largest_error(state, want_state) < BFLOAT16
        for name, want in gradients.items():
            assert got[name].dtype == inputs[name].dtype
            assert largest_error(got[name], want) < BFLOAT16, name

    def test_cut_anywhere_and_continued_equals_uncut(self):
        inputs = to_jax(make_arguments(20))
        whole_y, whole_state = run(**inputs, **self.options)
        for cut in (1, 10, 19):
            head, rest = dict(inputs), dict(inputs)
            for name in (*PER_TOKEN, "mask", "reset"):
                head[name], rest[name] = inputs[name][:, :cut], inputs[name][:, cut:]
            head_y, state = run(**head, **self.options)
            rest_y, state = run(**rest | {"initial_state": state}, **self.options)
            y = np.concatenate([head_y, rest_y], axis=1)
            # Chunks fall elsewhere, so the last bits may differ.
            assert largest_error(y, np.asarray(whole_y, np.float64)) < 1e-6, cut
            assert largest_error(state, np.asarray(whole_state, np.float64)) < 1e-6, cut

    def test_nothing_in_an_absent_position_reaches_values_or_gradients(self):
        inputs = to_jax(make_arguments(39))
        cotangents = tuple(jnp.asarray(c, jnp.float32) for c in make_cotangents(inputs))
        absent = ~inputs["mask"]
        poisoned = dict(inputs)
        for name in PER_TOKEN:
            lead = absent.reshape(*absent.shape, *[1] * (inputs[name].ndim - 2))
            poisoned[name] = jnp.where(lead, jnp.nan, inputs[name])
        clean = run_with_gradients(inputs, cotangents, **self.options)
        got = run_with_gradients(poisoned, cotangents, **self.options)
        jax.tree.map(np.testing.assert_array_equal, got, clean)
        assert not np.any(np.where(absent[:, :, None, None], got[0][0], 0.0))

    @pytest.mark.parametrize("strong", [50.0, 3000.0])
    def test_weak_decays_after_strong_ones_keep_their_digits(self, strong: float):
        # Token 2 forgets nearly everything, the others nearly nothing. Decays as differences of
        # running sums in float32 would be wrong by 6e-8 times `strong`, gradients be NaN.
        random = np.random.default_rng(0)
        step = np.full((1, 12, 1), 0.01)
        step[:, 2] = strong
        arguments = {
            "x": random.standard_normal((1, 12, 1, 2)),
            "dt": step * (1.0 + random.random(step.shape)),
            "A": np.array([-1.3]),
            "B": random.standard_normal((1, 12, 1, 3)),
            "C": random.standard_normal((1, 12, 1, 3)),
        }
        # What token 2 writes would hide the rest.
        arguments["x"][:, 2] = 0.0
        inputs = {name: np.asarray(value, np.float32) for name, value in arguments.items()}
        exact = {name: value.astype(np.float64) for name, value in inputs.items()}
        cotangents = make_cotangents(arguments)
        (y, state), got = run_with_gradients(
            to_jax(inputs), tuple(jnp.asarray(c, jnp.float32) for c in cotangents), **self.options
        )
        want_y, want_state = ssd_oracle(**exact)
        assert largest_error(y, want_y) < 1e-6
        assert largest_error(state, want_state) < 1e-6
        for name, want in oracle_gradients(ssd_oracle, exact, [*inputs], cotangents).items():
            assert largest_error(got[name], want) < 1e-6, name


class TestReference(SSDSuite):
    implementation = "reference"


class TestChunked(SSDSuite):
    implementation = "chunked"


class TestSmallChunks(SSDSuite):
    """Many chunks, the last one padded, as long sequences have."""

    implementation = "chunked"
    chunk = 8

    @pytest.mark.parametrize("length", [7, 8, 9])
    def test_lengths_around_one_chunk(self, length: int):
        check_against_oracle(length, **self.options)


@pytest.mark.parametrize(
    ("length", "chunk", "chunks_at_once"),
    [
        pytest.param(9, 3, 7, marks=pytest.mark.slow),  # more than there are
        (16, 4, 4),  # all at once
        # three times two, the last chunk padded
        pytest.param(16, 3, 2, marks=pytest.mark.slow),
        (39, 5, 3),  # three times three, two chunks of the last three padded
        (39, 2, 20),  # more than the states' unrolled steps
    ],
)
def test_chunks_at_once_equal_the_oracle(length: int, chunk: int, chunks_at_once: int):
    check_against_oracle(
        length, implementation="chunked", chunk=chunk, chunks_at_once=chunks_at_once
    )


def test_resets_around_the_border_of_spans_forget_what_was_before():
    # Spans of 6 tokens, chunks of 3: a row resets before, at or after the border of two spans, or
    # at the border of two chunks.
    arguments = make_arguments(15)
    reset = np.zeros((len(ROWS), 15), bool)
    for row, places in enumerate([[5], [6], [7], [3], [5, 6], [6, 12]]):
        reset[row, places] = True
    inputs = to_jax(arguments | {"reset": reset, "mask": np.ones_like(reset)})
    cotangents = tuple(jnp.asarray(c, jnp.float32) for c in make_cotangents(arguments))
    want = run_with_gradients(inputs, cotangents, implementation="reference")
    got = run_with_gradients(
        inputs, cotangents, implementation="chunked", chunk=3, chunks_at_once=2
    )
    jax.tree.map(lambda have, exact: np.testing.assert_allclose(have, exact, atol=2e-5), got, want)
    # Nothing of the start is left, in no bit.
    other_start = inputs | {"initial_state": inputs["initial_state"] + 1.0}
    other_y, other_state = run(**other_start, implementation="chunked", chunk=3, chunks_at_once=2)
    np.testing.assert_array_equal(other_state, got[0][1])
    for row, place in enumerate([5, 6, 7, 3, 5, 6]):
        np.testing.assert_array_equal(other_y[row, place:], got[0][0][row, place:])


def test_one_head_a_channel_is_the_selective_scan():
    made = make_arguments(9)
    inputs = to_jax(
        made | {"x": made["x"][..., :1], "initial_state": made["initial_state"][:, :, :1]}
    )
    one_group = inputs | {name: inputs[name][:, :, :1] for name in ("B", "C")}
    scan = {
        "u": inputs["x"][..., 0],
        "delta": inputs["dt"],
        "A": jnp.broadcast_to(inputs["A"][:, None], (HEADS, STATES)),
        "B": one_group["B"][:, :, 0],
        "C": one_group["C"][:, :, 0],
        "initial_state": inputs["initial_state"][:, :, 0],
    }
    rest = {name: inputs[name] for name in ("D", "mask", "reset")}
    want, want_state = selective_scan(**scan, **rest, softplus=False, return_final_state=True)
    got, got_state = ssd(**one_group, return_final_state=True)
    np.testing.assert_allclose(got[..., 0], want, atol=1e-5)
    np.testing.assert_allclose(got_state[:, :, 0], want_state, atol=1e-5)


def test_the_matrices_of_two_chunks_are_never_in_memory_together():
    batch, length, heads, channels, states, chunk = 2, 4096, 8, 16, 16, 128

    def shape(*sizes: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, jnp.float32)

    def loss(x, dt, A, B, C):
        return ssd(x, dt, A, B, C, chunk=chunk).sum()

    per_group = shape(batch, length, 1, states)
    lowered = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3, 4))).lower(
        shape(batch, length, heads, channels),
        shape(batch, length, heads),
        shape(heads),
        per_group,
        per_group,
    )
    all_matrices = 4 * batch * length * heads * chunk
    assert lowered.compile().memory_analysis().temp_size_in_bytes < 0.75 * all_matrices


def test_auto_is_chunked_and_says_so_once(caplog: pytest.LogCaptureFixture):
    arguments.log_choice.cache_clear()
    inputs = to_jax(make_arguments(3))
    with caplog.at_level(logging.INFO):
        automatic = [ssd(**inputs) for _ in range(2)]
    np.testing.assert_array_equal(automatic[0], ssd(**inputs, implementation="chunked"))
    messages = [record.getMessage() for record in caplog.records if "auto" in record.getMessage()]
    assert messages == ["ssd: implementation 'auto' is 'chunked' on cpu"]


def test_unknown_implementation_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'chunky'.*'auto', 'reference', 'chunked'"):
        ssd(**to_jax(make_arguments(2)), implementation="chunky")


def wrong_arguments() -> list[tuple[str, object]]:
    good = to_jax(make_arguments(4))
    wrong = [(name, value[..., :-1]) for name, value in good.items() if name not in ("x", "B")]
    return [
        *wrong,
        ("x", good["x"][0]),
        ("x", good["x"][:, :0]),
        ("B", good["B"][:, :-1]),
        ("B", good["B"].astype(jnp.int32)),
        ("mask", good["mask"].astype(jnp.float32)),
        ("initial_state", good["initial_state"].astype(jnp.bfloat16)),
        ("chunk", 0),
        ("chunks_at_once", 0),
    ]


@pytest.mark.parametrize(("name", "value"), wrong_arguments())
def test_wrong_shape_or_dtype_names_the_argument(name: str, value: Any):
    # The shape checker that tests switch on would speak first: call the function beneath it.
    function = inspect.unwrap(ssd)
    with pytest.raises(ValueError, match=f"^{name}: .* came; .* needed"):
        function(**to_jax(make_arguments(4)) | {name: value})


def test_heads_that_groups_do_not_divide_are_refused():
    good = to_jax(make_arguments(4))
    three = {name: jnp.concatenate([good[name], good[name][:, :, :1]], axis=2) for name in "BC"}
    with pytest.raises(ValueError, match=r"^B: 3 groups came; a divisor of the 4 heads is needed"):
        ssd(**good | three)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_forward_and_reverse_derivatives_agree(implementation: str):
    inputs = to_jax(make_arguments(5, full=False))
    direction = jax.tree.map(jnp.ones_like, inputs)

    @jax.jit
    def total(inputs: dict) -> jax.Array:
        return jnp.sum(jnp.sin(ssd(**inputs, implementation=implementation, chunk=2)))

    _, forward = jax.jvp(total, (inputs,), (direction,))
    reverse = sum(jnp.sum(gradient) for gradient in jax.grad(total)(inputs).values())
    np.testing.assert_allclose(forward, reverse, rtol=1e-4)


def test_every_implementation_has_a_suite():
    assert {suite.implementation for suite in SSDSuite.__subclasses__()} == set(IMPLEMENTATIONS)
