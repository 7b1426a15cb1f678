"""Our side of the operations: random inputs, and the function that is timed in each direction."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrank.benchmarking.cases import AttentionShape, Case, ScanShape, SsdShape
from jaxrank.benchmarking.floors import Work, count_operation
from jaxrank.benchmarking.timing import CompiledSide, Side
from jaxrank.ops.attention import attention
from jaxrank.ops.selective_scan import selective_scan
from jaxrank.ops.ssd import ssd
from jaxrank.shapes import Array, Key

Inputs = dict[str, jax.Array]


class Prepared(NamedTuple):
    """Our side of a case, with what is known of it."""

    side: Side
    work: list[Work]
    """What the floor is computed from; empty where nothing is counted."""
    parameters: int | None = None
    """How many numbers a network has, trained or not."""


def make_inputs(case: Case, key: Key[Array, ""]) -> Inputs:
    """Random arguments of an operation, by name; the same key gives the same.

    Steps, decays and gates are of the sizes that they have in models: steps about 0.01 to 0.1,
    decays A from -1 to -N (Mamba), from -1 to -16 (Mamba-2).
    """
    shape, dtype = case.shape, jnp.dtype(case.dtype)
    keys = iter(jax.random.split(key, 8))

    def normal(*sizes: int, dtype: Any = dtype) -> jax.Array:
        return jax.random.normal(next(keys), sizes, dtype)

    tokens = shape.batch, shape.length
    if isinstance(shape, ScanShape):
        channels, states = shape.channels, shape.states
        decay = jnp.broadcast_to(jnp.arange(1.0, states + 1)[None, :], (channels, states))
        return {
            "u": normal(*tokens, channels),
            "delta": normal(*tokens, channels),
            "A": -decay,
            "B": normal(*tokens, states),
            "C": normal(*tokens, states),
            "D": normal(channels, dtype=jnp.float32),
            "z": normal(*tokens, channels),
            "delta_bias": normal(channels, dtype=jnp.float32) - 3.0,
        }
    if isinstance(shape, SsdShape):
        shared = *tokens, shape.groups, shape.states
        return {
            "x": normal(*tokens, shape.heads, shape.head_size),
            "dt": jax.nn.softplus(normal(*tokens, shape.heads, dtype=jnp.float32) - 3.0),
            "A": -jnp.linspace(1.0, 16.0, shape.heads),
            "B": normal(*shared),
            "C": normal(*shared),
            "D": normal(shape.heads, dtype=jnp.float32),
        }
    assert isinstance(shape, AttentionShape)
    heads = *tokens, shape.heads, shape.head_size
    return {"query": normal(*heads), "key": normal(*heads), "value": normal(*heads)}


def make_operation(case: Case, implementation: str) -> Callable[..., jax.Array]:
    """The operation on named arguments."""
    shape = case.shape
    if isinstance(shape, AttentionShape):
        is_causal = shape.is_causal
        return lambda **inputs: attention(
            **inputs, is_causal=is_causal, implementation=implementation
        )
    function: Any = selective_scan if isinstance(shape, ScanShape) else ssd
    return lambda **inputs: function(**inputs, implementation=implementation)


def make_cotangent(case: Case, key: Key[Array, ""]) -> jax.Array:
    """What a backward pass starts from: random, of the result's shape and dtype."""
    like = result_like(case)
    return jax.random.normal(jax.random.fold_in(key, 1), like.shape, like.dtype)


def result_like(case: Case) -> jax.ShapeDtypeStruct:
    """Shape and dtype of the result: those of what is mixed."""
    inputs = jax.eval_shape(lambda: make_inputs(case, jax.random.key(0)))
    return next(inputs[name] for name in ("u", "x", "query") if name in inputs)


def operation_side(case: Case, implementation: str) -> Prepared:
    """An operation, ready to be timed.

    `forward` is the function; `backward` the pullback alone, whose inputs are what a forward pass
    kept; `both` the result with the gradients of all arguments.
    """
    operation = make_operation(case, implementation)

    def call(inputs: Inputs) -> jax.Array:
        return operation(**inputs)

    def both(inputs: Inputs, cotangent: jax.Array) -> Any:
        y, pullback = jax.vjp(call, inputs)
        (gradients,) = pullback(cotangent)
        return y, *(gradients[name] for name in sorted(gradients))

    sets = [make_inputs(case, key) for key in case.random_keys]
    work = count_operation(case)
    if case.direction == "forward":
        inputs = [(inputs,) for inputs in sets]
        return Prepared(CompiledSide(call, inputs, names=["y"]), work)
    cotangents = [make_cotangent(case, key) for key in case.random_keys]
    names = [f"gradient of {name}" for name in sorted(sets[0])]
    if case.direction == "both":
        pairs = list(zip(sets, cotangents, strict=True))
        return Prepared(CompiledSide(both, pairs, names=["y", *names]), work)
    start = jax.jit(lambda inputs: jax.vjp(call, inputs)[1])
    pullbacks = [start(inputs) for inputs in sets]

    def backward(pullback: Any, cotangent: jax.Array) -> Any:
        (gradients,) = pullback(cotangent)
        return tuple(gradients[name] for name in sorted(gradients))

    pairs = list(zip(pullbacks, cotangents, strict=True))
    return Prepared(CompiledSide(backward, pairs, names=names), work)
