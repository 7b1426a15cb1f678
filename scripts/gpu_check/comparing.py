"""Comparisons of an operation's values and gradients with float64."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrank.ops.oracle import largest_error, oracle_gradients
from scripts.gpu_check.adjoint import Wanted
from scripts.gpu_check.rows import BFLOAT16, GRADIENTS, VALUES, Row, compared, go_on

Arrays = dict[str, np.ndarray]
Cotangents = tuple[np.ndarray, np.ndarray]
Reference = Callable[[Arrays, Cotangents], Wanted]
"""Values and gradients of an operation that yields outputs and a final state."""

PER_TOKEN = ("u", "delta", "z", "B", "C", "x")
"""Arguments that come in the dtype of the model; the others are float32."""


def by_complex_steps(oracle: Callable[..., tuple[np.ndarray, np.ndarray]]) -> Reference:
    """The reference that an oracle is: slow, and beyond doubt."""

    def reference(arguments: Arrays, cotangents: Cotangents) -> Wanted:
        names = [name for name, value in arguments.items() if value.dtype != bool]
        gradients = oracle_gradients(oracle, arguments, names, cotangents)
        return Wanted(oracle(**arguments), gradients)

    return reference


def compare(
    check: str,
    case: str,
    function: Callable[..., tuple[jax.Array, jax.Array]],
    reference: Reference,
    arguments: Arrays,
    *,
    seed: int,
    dtype: Any = jnp.float32,
) -> Iterator[Row]:
    """Compare values and every gradient, at "highest" matrix products.

    Args:
        function: takes the arguments by name and yields outputs and final state.
        dtype: of the arguments in PER_TOKEN; the reference is given them rounded.
    """
    rows = _compare(check, case, function, reference, arguments, seed=seed, dtype=dtype)
    yield from go_on(check, case, rows)


def _compare(
    check: str,
    case: str,
    function: Callable[..., tuple[jax.Array, jax.Array]],
    reference: Reference,
    arguments: Arrays,
    *,
    seed: int,
    dtype: Any,
) -> Iterator[Row]:
    names = [name for name, value in arguments.items() if value.dtype != bool]
    moving = {
        name: jnp.asarray(arguments[name], dtype if name in PER_TOKEN else jnp.float32)
        for name in names
    }
    fixed = {name: jnp.asarray(arguments[name]) for name in arguments if name not in names}

    def call(moving: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return function(**moving, **fixed)

    random = np.random.default_rng(seed)
    given = jax.tree.map(
        lambda output: jnp.asarray(random.standard_normal(output.shape), output.dtype),
        jax.eval_shape(call, moving),
    )

    @jax.jit
    def run(moving: dict[str, jax.Array], cotangents: Any) -> tuple[Any, dict[str, jax.Array]]:
        values, pull = jax.vjp(call, moving)
        return values, pull(cotangents)[0]

    with jax.default_matmul_precision("highest"):
        values, gradients = run(moving, given)
    exact = {name: np.asarray(value, np.float64) for name, value in moving.items()}
    marks = {name: arguments[name] for name in fixed}
    y_bar, state_bar = (np.asarray(cotangent, np.float64) for cotangent in given)
    wanted = reference({**exact, **marks}, (y_bar, state_bar))
    pairs = zip(("y", "final state"), values, wanted.outputs, strict=True)
    errors = {name: largest_error(_wide(got), want) for name, got, want in pairs}
    is_narrow = dtype != jnp.float32
    yield compared(check, f"{case}, values", errors, BFLOAT16 if is_narrow else VALUES)
    errors = {
        name: largest_error(_wide(gradients[name]), want) for name, want in wanted.gradients.items()
    }
    yield compared(check, f"{case}, gradients", errors, BFLOAT16 if is_narrow else GRADIENTS)


def _wide(array: jax.Array) -> np.ndarray:
    return np.asarray(array.astype(jnp.float32), np.float64)
