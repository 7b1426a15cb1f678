"""`causal_conv1d` against the float64 oracle."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrank.ops import conv
from jaxrank.ops.conv import causal_conv1d
from jaxrank.ops.oracle import causal_conv1d_oracle, largest_error, oracle_gradients

# Four products a value; weight gradients sum 240 of them, each rounded at 6e-8 (measured: 3e-7).
FLOAT32 = 2e-6
# Outputs round to bfloat16 at 2^-9 = 2e-3.
BFLOAT16 = 3e-3
BATCH, CHANNELS = 6, 5


def make_arguments(length: int, *, width: int = 4, full: bool = True) -> dict:
    """Arguments in float64; with `full`: plain, masked tail, all masked, resets, holes, left."""
    random = np.random.default_rng(length)
    normal = random.standard_normal
    made = {"x": normal((BATCH, length, CHANNELS)), "weight": normal((CHANNELS, width))}
    if not full:
        return made
    made |= {"bias": normal(CHANNELS), "initial_state": normal((BATCH, width - 1, CHANNELS))}
    mask = np.ones((BATCH, length), bool)
    mask[1, -(length // 3) - 1 :] = False
    mask[2] = False
    mask[4] = random.random(length) < 0.5
    mask[5, : length // 2] = False
    reset = np.zeros((BATCH, length), bool)
    reset[3, [0, length // 2, -1]] = True
    reset[4] = random.random(length) < 0.15
    reset[[1, 2, 5], length // 3] = True
    return made | {"mask": mask, "reset": reset}


def to_jax(arguments: dict, dtype: type = jnp.float32) -> dict:
    return {
        name: jnp.asarray(value) if value.dtype == bool else jnp.asarray(value, dtype)
        for name, value in arguments.items()
    }


@functools.partial(jax.jit, static_argnames="activation")
def run(*, activation: str | None = None, **arrays: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return y and the final state."""
    return causal_conv1d(**arrays, activation=activation, return_final_state=True)


@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize(
    ("length", "width", "full"),
    [(1, 4, True), (2, 4, True), (23, 4, True), (23, 4, False), (5, 1, True)],
)
def test_values_and_every_gradient_equal_the_oracle(
    length: int, width: int, full: bool, activation: str | None
):
    arguments = make_arguments(length, width=width, full=full)
    random = np.random.default_rng(1)
    shapes = (arguments["x"].shape, (BATCH, width - 1, CHANNELS))
    cotangents = tuple(random.standard_normal(shape) for shape in shapes)
    names = [name for name in arguments if name not in ("mask", "reset")]

    inputs = to_jax(arguments)
    fixed = {name: value for name, value in inputs.items() if name not in names}

    @jax.jit
    def run_with_gradients(moving: dict, cotangents: tuple) -> tuple:
        values, pull = jax.vjp(lambda m: run(**m, **fixed, activation=activation), moving)
        return values, pull(cotangents)[0]

    values, gradients = run_with_gradients(
        {name: inputs[name] for name in names},
        tuple(jnp.asarray(c, jnp.float32) for c in cotangents),
    )

    def oracle(**arguments: np.ndarray) -> tuple:
        return causal_conv1d_oracle(**arguments, activation=activation)

    for name, got, want in zip(("y", "state"), values, oracle(**arguments), strict=True):
        assert largest_error(got, want) < FLOAT32, name
    for name, want in oracle_gradients(oracle, arguments, names, cotangents).items():
        assert largest_error(gradients[name], want) < FLOAT32, name


def test_bfloat16_is_computed_in_float32_and_its_tail_is_exact():
    inputs = to_jax(make_arguments(23), jnp.bfloat16)
    y, state = run(**inputs)
    exact = {
        name: np.asarray(value if value.dtype == bool else value.astype(jnp.float32))
        for name, value in inputs.items()
    }
    want_y, want_state = causal_conv1d_oracle(**exact)
    assert y.dtype == state.dtype == jnp.bfloat16
    assert largest_error(y, want_y) < BFLOAT16
    np.testing.assert_array_equal(np.asarray(state, np.float64), want_state)


@pytest.mark.parametrize("cut", [1, 2, 11, 20, 21])
def test_cut_anywhere_and_continued_equals_uncut(cut: int):
    inputs = to_jax(make_arguments(22))
    whole_y, whole_state = run(**inputs)
    head, rest = dict(inputs), dict(inputs)
    for name in ("x", "mask", "reset"):
        head[name], rest[name] = inputs[name][:, :cut], inputs[name][:, cut:]
    head_y, state = run(**head)
    rest_y, state = run(**rest | {"initial_state": state})
    np.testing.assert_allclose(jnp.concatenate([head_y, rest_y], 1), whole_y, atol=1e-6)
    np.testing.assert_array_equal(state, whole_state)


def test_nothing_in_an_absent_position_reaches_values_or_gradients():
    inputs = to_jax(make_arguments(23))
    absent = ~inputs["mask"][:, :, None]

    def loss(x: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        y, state = run(**inputs | {"x": x, "weight": weight}, activation="silu")
        return jnp.sum(y**2) + jnp.sum(state**2), y

    gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    clean = gradients(inputs["x"], inputs["weight"])
    got = gradients(jnp.where(absent, jnp.nan, inputs["x"]), inputs["weight"])
    jax.tree.map(np.testing.assert_array_equal, got, clean)
    assert not np.any(np.where(absent, got[0][1], 0.0))


@pytest.mark.parametrize(
    ("name", "value", "needed"),
    [
        ("x", jnp.zeros((6, 5)), "axes B L D"),
        ("weight", jnp.zeros((4, 4)), r"\(5, 4\)"),
        ("bias", jnp.zeros(4), r"\(5,\)"),
        ("initial_state", jnp.zeros((6, 4, 5)), r"\(6, 3, 5\)"),
        ("initial_state", jnp.zeros((6, 3, 5), jnp.bfloat16), "float32"),
        ("mask", jnp.zeros((6, 4)), "bool"),
        ("reset", jnp.zeros((6, 3), bool), r"\(6, 4\)"),
        ("activation", "gelu", "'silu'"),
    ],
)
def test_wrong_arguments_are_named(name: str, value: object, needed: str):
    # The shape checker that tests switch on would speak first: call the function beneath it.
    function = inspect.unwrap(causal_conv1d)
    with pytest.raises(ValueError, match=f"^{name}: .* came; .*{needed}.* needed"):
        function(**to_jax(make_arguments(4)) | {name: value})


def test_unknown_implementation_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'cudnn'.*'auto', 'xla'"):
        causal_conv1d(**to_jax(make_arguments(4)), implementation="cudnn")


def test_it_keeps_its_inputs_alone_for_the_gradient():
    inputs = to_jax(make_arguments(64, full=False), jnp.bfloat16)
    _, pull = jax.vjp(lambda a: causal_conv1d(**a, activation="silu"), inputs)
    kept = sum(leaf.nbytes for leaf in jax.tree.leaves(pull))
    tail = 3 * BATCH * CHANNELS * 2  # the state before the first token
    assert kept == sum(array.nbytes for array in inputs.values()) + tail


def test_gradients_of_bfloat16_inputs_round_twice_at_most():
    arguments = make_arguments(23, full=False)
    half = to_jax(arguments, jnp.bfloat16)
    wide = {name: value.astype(jnp.float32) for name, value in half.items()}
    cotangent = jnp.asarray(np.random.default_rng(1).standard_normal(half["x"].shape), jnp.bfloat16)

    def gradients(inputs: dict, cotangent: jax.Array) -> dict:
        return jax.vjp(lambda a: causal_conv1d(**a, activation="silu"), inputs)[1](cotangent)[0]

    got, want = gradients(half, cotangent), gradients(wide, cotangent.astype(jnp.float32))
    for name in got:
        assert largest_error(np.asarray(got[name]), np.asarray(want[name])) < 2 * BFLOAT16


def test_sums_for_a_gpu_are_the_sums_for_a_cpu():
    arrays = jnp.asarray(np.random.default_rng(0).standard_normal((3, 2, 7, 5)), jnp.float32)
    np.testing.assert_allclose(
        conv._sums_at_once(*arrays), conv._sums_one_by_one(*arrays), rtol=1e-6
    )
