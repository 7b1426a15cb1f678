"""LayerStack: the same layer many times, with the parameters of all layers stacked.

Every parameter has a leading layer axis. Initialisation is one lax.map over per-layer keys (a vmap
would hold the random bits of all layers at once, and took 2 to 3 times as long on a CPU) and the
forward pass one lax.scan over the layers, so compile time stays flat in depth and a weight table
needs one line for all layers. Both work on pure state (the layer's module is split once and merged
inside), so nothing here depends on how NNX lifts JAX's transforms.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from jaxrank.shapes import Array, Float, Key

Remat = Literal["none", "projections", "full"]

_THIN = 8
"""A product is thin if its result is so many times as wide as the sums in it are long."""

_KEPT = "kept beside projections"


class Applied(NamedTuple):
    """What a stack yields."""

    hidden: Float[Array, "B L D"]
    """The residual stream after the last layer."""

    outputs: Float[Array, "layers B L D"] | tuple[()]
    """The stream after every layer, where it was asked for."""

    own: Any
    """The layers' own arrays, stacked over them; None where they were not asked for."""


class LayerStack(nnx.Module):
    """`num_layers` layers made by `make_layer`, applied in order to a residual stream.

    A layer is called as `layer(hidden, key=..., **shared, **per_layer)` and returns the new hidden
    array, of the same shape and dtype; under `return_per_layer` that and a pytree of arrays that
    are its own.

    Args:
        make_layer: builds one layer from its own random streams.
        num_layers: how many.
        rngs: `params` is split into one key a layer.
        remat: how much of each layer the backward pass computes again (rematerialisation). "none":
            nothing, all is kept; "projections": all but the results of linear layers and what a
            layer says with `keep_beside_projections`. Results that come from few channels, as a
            low-rank adapter's do, are not kept: they are as large and cost next to nothing. "full":
            all, only the layer's input is kept, so memory is that of one layer, for about a third
            more arithmetic.
        unroll: layers laid out in one step of the scan; `num_layers` or more lays out all. More
            compiles longer and lets XLA optimise across layers.
    """

    def __init__(
        self,
        make_layer: Callable[[nnx.Rngs], nnx.Module],
        num_layers: int,
        *,
        rngs: nnx.Rngs,
        remat: Remat = "none",
        unroll: int = 1,
    ) -> None:
        if num_layers < 1 or unroll < 1:
            raise ValueError(f"{num_layers=} and {unroll=}; both must be at least 1")
        keys = jax.random.split(rngs.params(), num_layers)
        graphdef, state = jax.lax.map(lambda k: nnx.split(make_layer(nnx.Rngs(params=k))), keys)
        self.stacked = nnx.merge(graphdef, state)
        self.num_layers = num_layers
        self.remat = remat
        self.unroll = min(unroll, num_layers)

    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        *,
        key: Key[Array, ""] | None = None,
        per_layer: Mapping[str, Any] | None = None,
        return_hidden_states: bool = False,
        return_per_layer: bool = False,
        **shared: Any,
    ) -> Applied:
        """Apply all layers.

        Args:
            hidden: the residual stream before the first layer.
            key: layer i gets fold_in(key, i); None: every layer gets None (no dropout).
            per_layer: keyword arguments whose arrays have a leading layer axis; a layer gets its
                own slice.
            return_hidden_states: also return every layer's output.
            return_per_layer: also return the layers' own arrays.
            shared: keyword arguments that every layer gets alike.
        """
        graphdef, state = nnx.split(self.stacked)

        def apply_layer(hidden: Array, step: tuple[Any, Array, Any]) -> tuple[Array, Any]:
            layer_state, index, given = step
            layer: Any = nnx.merge(graphdef, layer_state)
            layer_key = None if key is None else jax.random.fold_in(key, index)
            applied = layer(hidden, key=layer_key, **shared, **given)
            hidden, own = applied if return_per_layer else (applied, None)
            return hidden, (hidden if return_hidden_states else (), own)

        if self.remat != "none":
            policies = jax.checkpoint_policies
            apply_layer = jax.checkpoint(
                apply_layer,
                # Inside a loop nothing can be shared between the passes; laid out in full, XLA
                # would merge the recomputation with the original and save nothing.
                prevent_cse=self.unroll == self.num_layers,
                policy=policies.save_from_both_policies(
                    _keeps_projections, policies.save_only_these_names(_KEPT)
                )
                if self.remat == "projections"
                else policies.nothing_saveable,
            )
        steps = (state, jnp.arange(self.num_layers), dict(per_layer or {}))
        hidden, (outputs, own) = jax.lax.scan(apply_layer, hidden, steps, unroll=self.unroll)
        return Applied(hidden, outputs, own)


def keep_beside_projections(x: Array) -> Array:
    """Return `x`, which remat "projections" then keeps for the backward pass.

    For results that cost much and whose own backward pass does not need their making anyway.
    """
    kept: Array = checkpoint_name(x, _KEPT)
    return kept


def _keeps_projections(primitive: Any, *inputs: Any, **parameters: Any) -> bool:
    """Whether a result is kept for the backward pass: that of a linear layer which is not thin."""
    policy: Any = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    if not policy(primitive, *inputs, **parameters):
        return False
    (contracted, _), _ = parameters["dimension_numbers"]
    length = math.prod(inputs[0].shape[axis] for axis in contracted)
    return length * _THIN > inputs[1].shape[-1]
