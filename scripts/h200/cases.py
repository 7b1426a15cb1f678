"""What is compiled: scan, SSD and a Mamba layer, with their gradients. Shapes only."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrank.models.implementations import Implementations, choose_implementations
from jaxrank.models.mamba import PRESETS, MambaMixer
from jaxrank.models.state_space import StateSpaceLayer
from jaxrank.ops.selective_scan import selective_scan
from jaxrank.ops.ssd import ssd

Shape = jax.ShapeDtypeStruct


class Case(NamedTuple):
    """A function and its positional arguments, as `compile_for_h200` takes them."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]


def scan_case(
    channels: int,
    *,
    batch: int = 64,
    length: int = 512,
    states: int = 16,
    dtype: Any = jnp.bfloat16,
    has_gate: bool = True,
    has_resets: bool = True,
) -> Case:
    """`selective_scan` by its Mosaic kernels: y, the final state, and the gradient of each operand.

    B and C are of `dtype`, as they come from a layer's projection.
    """
    tokens, by_state = (
        Shape((batch, length, channels), dtype),
        Shape((batch, length, states), dtype),
    )
    per_channel = Shape((channels,), jnp.float32)
    state = Shape((batch, channels, states), jnp.float32)
    operands = {
        "u": tokens,
        "delta": tokens,
        "A": Shape((channels, states), jnp.float32),
        "B": by_state,
        "C": by_state,
        "D": per_channel,
        "delta_bias": per_channel,
        "initial_state": state,
    }
    if has_gate:
        operands["z"] = tokens
    reset = Shape((batch, length), jnp.bool_) if has_resets else None

    def scan_and_gradients(operands: Any, reset: Any, cotangents: Any) -> Any:
        def scan(operands: Any) -> Any:
            return selective_scan(
                **operands, reset=reset, return_final_state=True, implementation="mosaic"
            )

        outputs, pull_back = jax.vjp(scan, operands)
        return outputs, pull_back(cotangents)

    return Case(scan_and_gradients, (operands, reset, (tokens, state)))


def ssd_case(*, batch: int = 64, length: int = 512, with_gradients: bool) -> Case:
    """`ssd` in a layer of mamba2-370m: y, and the gradient of each argument if that is asked for.

    Its default sizes go by the machine that traces it: see `jax.default_backend`.
    """
    heads, channels, states = 32, 64, 128
    per_group = Shape((batch, length, 1, states), jnp.bfloat16)
    per_head = Shape((heads,), jnp.float32)
    arguments = {
        "x": Shape((batch, length, heads, channels), jnp.bfloat16),
        "dt": Shape((batch, length, heads), jnp.float32),
        "A": per_head,
        "B": per_group,
        "C": per_group,
        "D": per_head,
    }

    def forward(arguments: Any) -> Any:
        return ssd(**arguments)

    def forward_and_gradients(arguments: Any, y_bar: Any) -> Any:
        y, pull_back = jax.vjp(forward, arguments)
        return y, pull_back(y_bar)

    if with_gradients:
        return Case(forward_and_gradients, (arguments, arguments["x"]))
    return Case(forward, (arguments,))


def layer_case(preset: str, *, batch: int = 64, length: int = 512) -> Case:
    """One layer of a Mamba model in bfloat16: its output and the gradient of all that goes in."""
    config = PRESETS[preset]

    def build() -> Any:
        layer = StateSpaceLayer(config, MambaMixer, dtype=jnp.bfloat16, rngs=nnx.Rngs(params=0))
        choose_implementations(layer, Implementations(selective_scan="mosaic"))
        return nnx.split(layer)

    graphdef, parameters = jax.eval_shape(build)
    residual = jnp.float32 if config.residual_in_float32 else jnp.bfloat16
    hidden = Shape((batch, length, config.hidden_size), residual)

    def layer_and_gradients(parameters: Any, hidden: Any, hidden_bar: Any) -> Any:
        def run(parameters: Any, hidden: Any) -> Any:
            return nnx.merge(graphdef, parameters)(hidden)

        out, pull_back = jax.vjp(run, parameters, hidden)
        return out, pull_back(hidden_bar)

    return Case(layer_and_gradients, (parameters, hidden, hidden))
