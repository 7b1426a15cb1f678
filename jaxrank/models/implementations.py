"""Which implementation the operations inside a model take; what there is stands with each of them.

A choice is an attribute of the modules that call the operation, set with NNX's own
`set_attributes`: it is part of the graph definition, and no state.
"""

from dataclasses import asdict, dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrank.errors import InputError
from jaxrank.shapes import PyTree


@dataclass(frozen=True)
class Implementations:
    """Implementation of each operation. `auto` fits the device and the call; others are strict."""

    attention: Literal["auto", "xla", "blocks", "cudnn"] = "auto"
    """Attention of the transformers: xla (plain), blocks (plain too, a block of scores at a time)
    or cudnn (fused; NVIDIA GPU, float16 or bfloat16, no attention dropout). auto: cudnn wherever it
    can, else xla, or blocks where the scores would take too much memory."""

    selective_scan: Literal["auto", "reference", "scan", "associative", "mosaic"] = "auto"
    """Mamba's scan: reference (slow, the specification), scan (token by token), associative (in
    parallel, more memory) or mosaic (fused; NVIDIA Hopper or newer). auto: the fastest there is."""

    ssd: Literal["auto", "reference", "chunked"] = "auto"
    """Mamba-2's recurrence: reference (slow, the specification) or chunked (matrix products). auto:
    chunked."""


def choose_implementations(module: nnx.Module, implementations: Implementations) -> None:
    """Make the operations of `module` take these implementations from now on.

    Raises:
        InputError: another than "auto" for an operation that the module does not have.
    """
    for operation, name in asdict(implementations).items():
        try:
            module.set_attributes(
                raise_if_not_found=name != "auto", **{f"{operation}_implementation": name}
            )
        except ValueError:
            raise InputError(
                f"training.implementations.{operation}: {name} came, but this model has no "
                f"{operation}; auto is needed"
            ) from None


def check_implementations(module: nnx.Module, *, length: int) -> None:
    """Refuse what this machine cannot run on texts of `length` tokens, before anything is begun.

    Some refusals come when a call is traced (sizes, dtypes), others when it is lowered for a device
    that is of another kind; so both are done, and nothing is compiled.

    Raises:
        InputError: with the refusal of the operation.
    """
    graphdef, state = nnx.split(module)

    def score(state: PyTree, input_ids: jax.Array, mask: jax.Array) -> jax.Array:
        scored: jax.Array = nnx.merge(graphdef, state)(input_ids, mask=mask)
        return scored

    shapes = (
        jax.ShapeDtypeStruct((2, length), jnp.int32),
        jax.ShapeDtypeStruct((2, length), jnp.bool_),
    )
    try:
        jax.jit(score).lower(state, *shapes)
    except ValueError as error:
        raise InputError(f"training.implementations: {error}") from None
