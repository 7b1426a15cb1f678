"""What conversion knows of one family, as data; each family's file ends in one of these."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ckpt_convert.config_format import ConfigFormat
from ckpt_convert.rules import WeightTable

HiddenStates = Literal[
    "embeddings, layers", "embeddings, inner layers, final norm", "layers, final norm"
]


@dataclass(frozen=True)
class Architecture:
    """All that conversion knows of one family.

    Attributes:
        tables: name of the head -> weight table.
        config: the format of transformers' own configuration.
        classes: name of the head -> transformers' class that a saved folder names.
        template: the prompt template of a folder that names none.
        hidden_states: which states transformers returns for a stack of layers; an encoder-decoder
            has two stacks alike.
        classifier_dropout: rate in the classification head where config.json names none: a number,
            or the field of our configuration that it equals; None if that head has no dropout.
        refused: transformers' class -> why what it saves is not enough.
    """

    tables: Mapping[str, WeightTable]
    config: ConfigFormat
    classes: Mapping[str, str]
    template: str
    hidden_states: HiddenStates
    classifier_dropout: float | str | None = None
    refused: Mapping[str, str] = field(default_factory=dict)


def state_names(order: HiddenStates, num_layers: int) -> list[str]:
    """Names of the hidden states of one stack."""
    layers = [f"layer {index}" for index in range(1, num_layers + 1)]
    if order == "embeddings, layers":
        return ["embeddings", *layers]
    if order == "layers, final norm":
        return [*layers, "final norm"]
    return ["embeddings", *layers[:-1], "final norm"]
