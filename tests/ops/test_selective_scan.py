"""One suite for all implementations of `selective_scan`, against the float64 oracle."""

import functools
import inspect
import logging
import re
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrank.ops import arguments
from jaxrank.ops.oracle import largest_error, oracle_gradients, selective_scan_oracle
from jaxrank.ops.selective_scan import IMPLEMENTATIONS, selective_scan
from jaxrank.ops.selective_scan.reference import selective_scan_reference
from jaxrank.ops.selective_scan.tokens import Arguments
from tests.ops.selective_scan_cases import (
    FLOAT32,
    PER_TOKEN,
    differentiable,
    make_arguments,
    make_cotangents,
    run,
    run_with_gradients,
    to_jax,
    without_softplus,
)

# Outputs round to bfloat16 at 2^-9 = 2e-3. Anything computed in bfloat16 inside shows as 1e-2.
BFLOAT16 = 3e-3


@functools.cache
def oracle_case(length: int, full: bool, softplus: bool) -> tuple:
    arguments = make_arguments(length, full=full)
    if not softplus:
        arguments = without_softplus(arguments)
    cotangents = make_cotangents(arguments)
    oracle = functools.partial(selective_scan_oracle, softplus=softplus)
    gradients = oracle_gradients(oracle, arguments, differentiable(arguments), cotangents)
    return arguments, cotangents, oracle(**arguments), gradients


class SelectiveScanSuite:
    implementation: str

    def run(self, **arrays: jax.Array) -> tuple[jax.Array, jax.Array]:
        return run(**arrays, implementation=self.implementation)

    def run_with_gradients(
        self, arrays: dict, cotangents: tuple, softplus: bool = True
    ) -> tuple[tuple, dict]:
        return run_with_gradients(
            arrays, cotangents, softplus=softplus, implementation=self.implementation
        )

    @pytest.mark.parametrize(
        ("length", "full", "softplus"),
        [
            (1, True, True),
            (2, True, True),
            (16, False, True),
            (39, True, True),
            (5, True, False),
        ],
    )
    def test_values_and_every_gradient_equal_the_oracle(
        self, length: int, full: bool, softplus: bool
    ):
        arguments, cotangents, values, gradients = oracle_case(length, full, softplus)
        got, got_gradients = self.run_with_gradients(
            to_jax(arguments), tuple(jnp.asarray(c, jnp.float32) for c in cotangents), softplus
        )
        for name, have, want in zip(("y", "final state"), got, values, strict=True):
            assert largest_error(have, want) < FLOAT32, name
        for name, want in gradients.items():
            assert largest_error(got_gradients[name], want) < FLOAT32, name

    def test_bfloat16_inputs_are_computed_in_float32(self):
        arguments = make_arguments(11)
        inputs = to_jax(arguments, jnp.bfloat16)
        rounded = {name: np.asarray(value) for name, value in inputs.items()}
        rounded |= {name: np.asarray(inputs[name], np.float64) for name in PER_TOKEN}
        y_bar, state_bar = make_cotangents(arguments)
        y_bar = jnp.asarray(y_bar, jnp.bfloat16)
        cotangents = (np.asarray(y_bar, np.float64), state_bar)

        (y, state), got = self.run_with_gradients(
            inputs, (y_bar, jnp.asarray(state_bar, jnp.float32))
        )

        want_y, want_state = selective_scan_oracle(**rounded)
        assert y.dtype == jnp.bfloat16
        assert state.dtype == jnp.float32
        assert largest_error(y, want_y) < BFLOAT16
        assert largest_error(state, want_state) < FLOAT32
        names = differentiable(arguments)
        for name, want in oracle_gradients(
            selective_scan_oracle, rounded, names, cotangents
        ).items():
            assert got[name].dtype == inputs[name].dtype
            tolerance = BFLOAT16 if name in PER_TOKEN else FLOAT32
            assert largest_error(got[name], want) < tolerance, name

    def test_cut_anywhere_and_continued_equals_uncut(self):
        inputs = to_jax(make_arguments(20))
        whole_y, whole_state = self.run(**inputs)
        for cut in (1, 10, 19):
            head, rest = dict(inputs), dict(inputs)
            for name in (*PER_TOKEN, "mask", "reset"):
                head[name], rest[name] = inputs[name][:, :cut], inputs[name][:, cut:]
            head_y, state = self.run(**head)
            rest_y, state = self.run(**rest | {"initial_state": state})
            y = np.concatenate([head_y, rest_y], axis=1)
            # Chunks fall elsewhere, so the last bits may differ.
            assert largest_error(y, np.asarray(whole_y, np.float64)) < 1e-6, cut
            assert largest_error(state, np.asarray(whole_state, np.float64)) < 1e-6, cut

    def test_nothing_in_an_absent_position_reaches_values_or_gradients(self):
        inputs = to_jax(make_arguments(39))
        cotangents = tuple(jnp.asarray(c, jnp.float32) for c in make_cotangents(inputs))
        absent = ~inputs["mask"][:, :, None]
        poisoned = inputs | {name: jnp.where(absent, jnp.nan, inputs[name]) for name in PER_TOKEN}
        clean = self.run_with_gradients(inputs, cotangents)
        got = self.run_with_gradients(poisoned, cotangents)
        jax.tree.map(np.testing.assert_array_equal, got, clean)
        assert not np.any(np.where(absent, got[0][0], 0.0))

    def test_steps_of_any_size_stay_accurate(self):
        delta = np.linspace(-20.0, 20.0, 9).reshape(1, 9, 1)
        ones = np.ones((1, 9, 1))
        arguments = {"u": ones, "delta": delta, "A": -np.ones((1, 1)), "B": ones, "C": ones}
        # A reset everywhere leaves y = softplus(delta), whose relative error counts.
        arguments["reset"] = np.ones((1, 9), bool)
        want, _ = selective_scan_oracle(**arguments)
        got, _ = self.run(**to_jax(arguments))
        np.testing.assert_allclose(got, want, rtol=1e-6)


class TestReference(SelectiveScanSuite):
    implementation = "reference"


class TestScan(SelectiveScanSuite):
    implementation = "scan"


class TestAssociative(SelectiveScanSuite):
    implementation = "associative"


@pytest.mark.parametrize("implementation", ["scan", "associative"])
def test_no_array_of_all_states_of_all_tokens_is_ever_in_memory(implementation: str):
    batch, length, channels, states = 2, 1024, 64, 16

    def shape(*sizes: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, jnp.float32)

    def loss(u, delta, A, B, C):
        return selective_scan(u, delta, A, B, C, implementation=implementation).sum()

    tokens, per_state = shape(batch, length, channels), shape(batch, length, states)
    lowered = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3, 4))).lower(
        tokens, tokens, shape(channels, states), per_state, per_state
    )
    all_states = 4 * batch * length * channels * states
    assert lowered.compile().memory_analysis().temp_size_in_bytes < 0.75 * all_states


def test_auto_is_scan_on_cpu_and_says_so_once(caplog: pytest.LogCaptureFixture):
    arguments.log_choice.cache_clear()
    inputs = to_jax(make_arguments(3))
    with caplog.at_level(logging.INFO):
        automatic = [selective_scan(**inputs) for _ in range(2)]
    np.testing.assert_array_equal(automatic[0], selective_scan(**inputs, implementation="scan"))
    messages = [record.getMessage() for record in caplog.records if "auto" in record.getMessage()]
    assert messages == ["selective_scan: implementation 'auto' is 'scan' on cpu"]


def test_unknown_implementation_lists_the_known_ones():
    known = r"'sacn'.*'auto', 'reference', 'scan', 'associative', 'mosaic'"
    with pytest.raises(ValueError, match=known):
        selective_scan(**to_jax(make_arguments(2)), implementation="sacn")


def wrong_arguments() -> list[tuple[str, object]]:
    good = to_jax(make_arguments(4))
    wrong = [(name, value[..., :-1]) for name, value in good.items() if name not in ("u", "A")]
    return [
        *wrong,
        ("u", good["u"][0]),
        ("u", good["u"][:, :0]),
        ("A", good["A"][:-1]),
        ("B", good["B"].astype(jnp.int32)),
        ("mask", good["mask"].astype(jnp.float32)),
        ("initial_state", good["initial_state"].astype(jnp.bfloat16)),
    ]


@pytest.mark.parametrize(("name", "value"), wrong_arguments())
def test_wrong_shape_or_dtype_names_the_argument(name: str, value: jax.Array):
    # The shape checker that tests switch on would speak first: call the function beneath it.
    function = inspect.unwrap(selective_scan)
    culprit = "delta" if name == "u" and value.ndim == 3 and value.size else name
    with pytest.raises(ValueError, match=f"^{culprit}: .* came; .* needed"):
        function(**to_jax(make_arguments(4)) | {name: value})


def test_scan_can_be_vmapped():
    inputs = to_jax(make_arguments(5))
    both = jax.tree.map(lambda x: jnp.stack([x, x]), inputs)
    y, _ = jax.vmap(lambda inputs: run(**inputs, implementation="scan"))(both)
    want, _ = run(**inputs, implementation="scan")
    np.testing.assert_allclose(y[1], want, rtol=1e-6)


def test_reference_in_float64_equals_the_oracle():
    arguments, cotangents, values, gradients = oracle_case(39, True, True)
    with jax.enable_x64(True):
        arrays = {name: jnp.asarray(value) for name, value in arguments.items()}

        def reference(moving: dict) -> tuple[jax.Array, jax.Array]:
            return selective_scan_reference(
                Arguments(**arrays | moving, softplus=True), jnp.float64
            )

        got, pull = jax.vjp(reference, {name: arrays[name] for name in gradients})
        (got_gradients,) = pull(tuple(map(jnp.asarray, cotangents)))
    for have, want in zip(got, values, strict=True):
        assert largest_error(have, want) < 1e-13
    for name, want in gradients.items():
        assert largest_error(got_gradients[name], want) < 1e-13, name


def test_every_implementation_has_a_suite():
    here = {suite.implementation for suite in SelectiveScanSuite.__subclasses__()}
    # Its kernels must be interpreted, which another environment can do.
    kernels = Path(__file__).parents[1] / "kernels" / "test_mosaic_scan.py"
    elsewhere = set(re.findall(r'IMPLEMENTATION = "(\w+)"', kernels.read_text()))
    assert elsewhere == {"mosaic"}
    assert here | elsewhere == set(IMPLEMENTATIONS)
    assert not here & elsewhere
