"""What every architecture offers: the Backbone protocol and the Family record.

A backbone turns token ids into one vector a token. A family names an architecture and says what
the rest of the code must know of it: its configuration class, its backbone class, which vector
stands for the whole text, its own classification head and its published sizes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol, runtime_checkable

from jaxrank.errors import InputError
from jaxrank.shapes import Array, Bool, Float, Int, Key

Pooling = Literal["first", "last"]


@runtime_checkable
class BackboneConfig(Protocol):
    """What every backbone's configuration can be asked."""

    @property
    def vocab_size(self) -> int:
        """Rows of the token table."""
        ...

    @property
    def hidden_size(self) -> int:
        """Width of the vectors that the backbone yields."""
        ...

    @property
    def num_layers(self) -> int:
        """Layers of its stack."""
        ...


@runtime_checkable
class Backbone(Protocol):
    """Turns token ids into hidden vectors; every architecture in this folder is one."""

    config: Any

    def encode(
        self,
        input_ids: Int[Array, "B L"],
        *,
        mask: Bool[Array, "B L"],
        token_type_ids: Int[Array, "B L"] | None = None,
        key: Key[Array, ""] | None = None,
        return_hidden_states: bool = False,
    ) -> Float[Array, "B L D"] | tuple[Float[Array, "B L D"], Float[Array, "states B L D"]]:
        """Encode right-padded texts.

        `mask` is True for real tokens; what a masked position yields is unspecified, and no real
        position depends on it. `key` draws dropout; without one nothing is dropped. With
        `return_hidden_states` also the num_layers + 1 hidden states, in the order and by the
        convention of transformers' `output_hidden_states`.
        """
        ...


@dataclass(frozen=True)
class Family:
    """An architecture, as the rest of the code sees it."""

    name: str
    """Key in FAMILIES; `model_type` in a Hugging Face config.json."""

    config_class: type
    """The frozen dataclass that `backbone` takes."""

    backbone: Callable[..., Backbone]
    """The backbone's class, called as (config, *, dtype, rngs, remat, unroll)."""

    pooling: Pooling
    """Whose vector is scored: the first token's ([CLS]) or the last real token's ([EOS])."""

    classification_head: Callable[..., Any] | None
    """The head of transformers' own sequence-classification class, called as
    (config, *, dropout_rate, rngs); None where transformers has no such class."""

    presets: Mapping[str, BackboneConfig]
    """Published sizes by name."""


def check_config(config: Any) -> None:
    """Raise InputError unless whole numbers are positive, rates below 1 and the rest at least 0.

    A field whose value is not a number (a flag, None) is left to the config's own checks.
    """
    for field in fields(config):
        value = getattr(config, field.name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        where = f"{type(config).__name__}: {field.name} is {value}"
        if isinstance(value, int) and field.type in (int, "int", int | None, "int | None"):
            if value < 1:
                raise InputError(f"{where}; it must be at least 1")
        elif not 0 <= value < float("inf"):
            raise InputError(f"{where}; it must be a finite number of at least 0")
        elif field.name.endswith("dropout") and value >= 1:
            raise InputError(f"{where}; a dropout rate is below 1")
