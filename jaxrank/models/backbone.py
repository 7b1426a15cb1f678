"""What every architecture offers: the Backbone protocol and the Family record.

A backbone turns token ids into one vector a token. A family names an architecture and says what
the rest of the code must know of it: its configuration class, its backbone class, which vector
stands for the whole text, how prompts are worded for it, its own classification head and its
published sizes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol, get_args, get_origin, runtime_checkable

from jaxrank.errors import InputError
from jaxrank.models.packing import Packing
from jaxrank.models.states import State, StateArray
from jaxrank.shapes import Array, Bool, Float, Int, Key

Pooling = Literal["first", "last"]
Wording = Literal["encoder", "decoder", "encoder-decoder"]
Vectors = Float[Array, "B L D"] | tuple[Float[Array, "B L D"], tuple[Array, ...]]
"""Hidden vectors, or those and all hidden states."""
Encoded = Vectors | tuple[Vectors, State]
"""Those, or those and the state after each text."""


class BackboneConfig:
    """What every backbone's configuration, a frozen dataclass, can be asked."""

    vocab_size: int
    hidden_size: int
    num_layers: int

    def __post_init__(self) -> None:
        check_config(self)

    @property
    def max_length(self) -> int | None:
        """Longest input in tokens; None where the architecture sets no limit."""
        return None

    @property
    def output_size(self) -> int:
        """Width of the vectors that `encode` yields."""
        return self.hidden_size

    @property
    def decoder_layers(self) -> int | None:
        """Layers of the decoder behind an encoder; None where there is none."""
        return None


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
        packing: Packing | None = None,
        key: Key[Array, ""] | None = None,
        return_hidden_states: bool = False,
    ) -> Encoded:
        """Encode right-padded texts.

        `mask` is True for real tokens, the first of each row: only their number is looked at, so
        one that stands after a masked position would count as padding. What a masked position
        yields is unspecified, and no real position depends on it. With a `packing` each row holds
        several texts, and what a text's tokens yield is what they would yield in a row of its own;
        `mask` is then not looked at.
        `key` draws dropout; without one nothing is dropped. With `return_hidden_states` also the
        hidden states, in the order and by the convention of transformers' `output_hidden_states`;
        an encoder-decoder's encoder comes first. An encoder-decoder yields its decoder's vectors,
        and takes `decoder_input` beside the rest.

        Where the family has `state_arrays`, two more arguments let a text be read in pieces, each
        right-padded, with no packing: `initial_state`, a State, in which case row b goes on where
        text b of that state ends; and `return_final_state`, in which case the result is a pair of
        the above and the State after each row's last real token. Gradients flow through states.
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
    """Whose vector the linear head scores: the first token's ([CLS], or the first decoded one) or
    the last real token's ([EOS])."""

    wording: Wording
    """Which wording of a prompt template it reads: an encoder's starts with [CLS], a decoder's
    ends with [EOS]."""

    classification_head: Callable[..., Any] | None
    """The head of transformers' own sequence-classification class, called as
    (config, *, dropout_rate, rngs); None where transformers has no such class."""

    presets: Mapping[str, BackboneConfig]
    """Published sizes by name, and `<name>-tiny` for tests and first tries."""

    lora_targets: tuple[str, ...]
    """Names of the layers that get a low-rank adapter unless others are asked for: those of
    RankMamba's code, where it has a list, or all linear layers inside the stack."""

    state_arrays: Callable[[Any], tuple[StateArray, ...]] | None = None
    """From a configuration to what a text's state is made of, for backbones whose `encode` goes on
    from one; None where what a text yields depends on what comes after it."""

    encode_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Name of a head -> what `encode` is told under it, e.g. how far an encoder-decoder decodes."""


def check_config(config: Any) -> None:
    """Raise InputError unless sizes are positive, rates below 1 and the rest at least 0.

    The base and the factor of rotary turns must be above 0, a word one of its field's. Other values
    that are no numbers (a flag, None) are left to the config's own checks.
    """
    for entry in fields(config):
        value = getattr(config, entry.name)
        where = f"{type(config).__name__}: {entry.name} is {value!r}"
        if get_origin(entry.type) is Literal and value not in get_args(entry.type):
            words = ", ".join(map(repr, get_args(entry.type)))
            raise InputError(f"{where}; known are {words}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if isinstance(value, int) and entry.type in (int, "int", int | None, "int | None"):
            least = 0 if entry.name.endswith("_token_id") else 1
            if value < least:
                raise InputError(f"{where}; it must be at least {least}")
        elif not 0 <= value < float("inf"):
            raise InputError(f"{where}; it must be a finite number of at least 0")
        elif entry.name.endswith(("rotary_base", "rotary_factor")) and value == 0:
            raise InputError(f"{where}; it must be above 0")
        elif entry.name.endswith("dropout") and value >= 1:
            raise InputError(f"{where}; a dropout rate is below 1")


def check_length(
    input_ids: Int[Array, "B L"], config: BackboneConfig, packing: Packing | None
) -> None:
    """Raise ValueError if the texts are longer than the model has positions.

    Packed rows may be longer: their texts are not, and how long those are is no shape. A longer
    one in spite of that would get NaN where positions are learned.
    """
    length, longest = input_ids.shape[1], config.max_length
    if packing is None and longest is not None and length > longest:
        raise ValueError(f"input_ids are {length} long; this model has {longest} positions")
