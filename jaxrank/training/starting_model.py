"""The architecture that a recipe asks for: a preset for a random start, with fields overridden."""

import difflib
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from jaxrank.errors import InputError
from jaxrank.models.families import get_family
from jaxrank.models.module import RerankerConfig
from jaxrank.training.config import ModelConfig


def random_architecture(model: ModelConfig) -> RerankerConfig:
    """The architecture of a random start.

    Raises:
        InputError: an unknown family, preset or field, named with the nearest known one.
    """
    family, preset = get_family(str(model.family)), str(model.preset)
    if preset not in family.presets:
        advice = _advise(preset, list(family.presets))
        raise InputError(f"model.preset: got {preset!r}; {advice}")
    config = RerankerConfig(family.name, family.presets[preset], head=model.head or "linear")
    return override(config, model)


def override(config: RerankerConfig, model: ModelConfig) -> RerankerConfig:
    """`config` with `model.overrides` in its backbone, and with `model.head_dropout`."""
    backbone: Any = config.backbone
    known = [field.name for field in fields(backbone)]
    for name, value in model.overrides.items():
        if name not in known:
            raise InputError(f"model.overrides.{name}: unknown; {_advise(name, known)}")
        if isinstance(value, bool | str) and not isinstance(getattr(backbone, name), bool | str):
            raise InputError(f"model.overrides.{name}: got {value!r}; a number is needed")
    config = replace(config, backbone=replace(backbone, **model.overrides))
    if model.head_dropout is None:
        return config
    return replace(config, head_dropout=model.head_dropout)


def check_vocabulary(config: RerankerConfig, size: int) -> None:
    """Refuse a tokenizer of `size` ids if the model has fewer embeddings."""
    rows = config.backbone.vocab_size
    if size > rows:
        raise InputError(
            f"model.tokenizer: has {size} tokens, the model's embedding {rows} rows; "
            "the model's own tokenizer is needed, or for a random start a larger "
            "model.overrides.vocab_size"
        )


def check_length(config: RerankerConfig, max_length: int, *, option: str) -> None:
    """Refuse a length for which the model has no positions; `option` is its name in the recipe."""
    positions = config.backbone.max_length
    if positions is not None and max_length > positions:
        raise InputError(f"{option}: got {max_length}; the model has {positions} positions")


def _advise(name: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(known)}"
