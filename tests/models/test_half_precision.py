"""Under half precision nothing is summed up over tokens or texts in half precision, by any family.

The traced program of a gradient is looked through, so this holds for every device.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrank.models.families import get_family
from jaxrank.models.linear import Linear
from jaxrank.models.module import RerankerConfig, RerankerModule

HALF = (jnp.dtype(jnp.float16), jnp.dtype(jnp.bfloat16))
TEXTS, LENGTH = 5, 8
# Softmax, norms, decays: their exponentials and roots have no business in half precision either;
# an activation's own (of gelu, say) is of one number and no sum.
ROOTS = ("rsqrt", "sqrt", "log", "cumsum", "cumlogsumexp", "reduce_max")


def operations(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        if equation.outvars:
            yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from operations(inner)


@pytest.mark.parametrize("family", ["bert", "opt", "bart", "mamba", "mamba2", "modernbert", "t5"])
def test_nothing_is_summed_over_tokens_in_half_precision(family: str):
    presets = get_family(family).presets
    name = next(name for name in presets if name.endswith("-tiny"))
    graphdef, state = jax.eval_shape(
        lambda: nnx.split(
            RerankerModule(
                RerankerConfig(family, presets[name]), dtype=jnp.float16, rngs=nnx.Rngs(params=0)
            )
        )
    )

    def total(parameters: Any, key: Any) -> jax.Array:
        ids = jnp.ones((TEXTS, LENGTH), jnp.int32)
        return nnx.merge(graphdef, parameters)(ids, mask=ids > 0, key=key).sum()

    program = jax.make_jaxpr(jax.grad(total))(state, jax.random.key(0))
    dtypes = set()
    for operation in operations(program.jaxpr):
        result = operation.outvars[0].aval
        kind = operation.primitive.name
        dtypes.add(getattr(result, "dtype", None))
        if getattr(result, "dtype", None) not in HALF:
            continue
        assert kind not in ROOTS, operation
        if kind == "reduce_sum":
            shape = operation.invars[0].aval.shape
            summed = [shape[axis] for axis in operation.params["axes"]]
            assert int(np.prod(summed)) < TEXTS, operation
    assert jnp.dtype(jnp.float16) in dtypes


def test_a_gradient_of_a_bias_does_not_stop_growing():
    """In bfloat16 itself, it was 128 on a CPU."""
    graphdef, state = nnx.split(Linear(2, 3, dtype=jnp.bfloat16, rngs=nnx.Rngs(params=0)))

    def total(state: Any) -> jax.Array:
        y = nnx.merge(graphdef, state)(jnp.ones((16, 1024, 2)))
        return 0.01 * y.astype(jnp.float32).sum()

    gradient = jax.jit(jax.grad(total))(state)
    np.testing.assert_allclose(gradient["bias"].get_value(), 163.84, rtol=1e-2)
