"""Low-rank adapters in PEFT's layout (see `adapters`), ours or PEFT's own, merged into their base.

Whatever makes an adapter anything else than (alpha / rank) A B is refused, and so is every tensor
that has no place in the base.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ckpt_convert.adapters import ADAPTER_WEIGHTS_FILE, PREFIX, is_table
from ckpt_convert.architectures import ARCHITECTURES
from ckpt_convert.name_lists import describe
from ckpt_convert.rules import IDENTITY, TRANSPOSE, Rule, WeightTable, canonical_name
from ckpt_convert.weight_files import ADAPTER_FILE, open_file
from jaxrank.errors import InputError
from jaxrank.files import read_json
from jaxrank.models.module import RerankerConfig, parameter_shapes

_PARTS = {
    "lora_A.weight": "a",
    "lora_B.weight": "b",
    "lora_embedding_A": "a",
    "lora_embedding_B": "b",
}
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "bias": ("none",),
    # The others take a part of the base's own weights.
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),
    "use_dora": (False,),
    "lora_bias": (False,),
    "rank_pattern": ({},),
    "alpha_pattern": ({},),
    "layer_replication": (),
    "target_parameters": ([],),
    "trainable_token_indices": (),
    "alora_invocation_tokens": (),
    "use_qalora": (False,),
    "use_bdlora": (),
    "arrow_config": (),
    "kasa_config": (),
    "velora_config": (),
    "monteclora_config": (),
}
"""Option of PEFT -> the values, beside null, under which a layer's adapter is (alpha / r) A B."""


_LARGEST = 1_000_000


class AdapterSettings(NamedTuple):
    """What an adapter_config.json says."""

    base: str | None
    rank: int
    scaling: float


class _Place(NamedTuple):
    """Where a tensor of theirs is in our parameters; `layer` counts from our first."""

    rule: Rule
    layer: int | None


def read_settings(folder: Path) -> AdapterSettings:
    """Read adapter_config.json.

    Raises:
        InputError: it describes anything else than plain low-rank adapters.
    """
    path = folder / ADAPTER_FILE
    attributes = read_json(path)
    if attributes.get("peft_type") != "LORA":
        raise InputError(f"{path}: peft_type is {attributes.get('peft_type')!r:.80}; LORA is read")
    for name, neutral in _NEUTRAL.items():
        value = attributes.get(name)
        if value is not None and value not in neutral:
            raise InputError(
                f"{path}: {name} is {value!r:.80}, which is not read; merge the adapters with "
                "peft (merge_and_unload), save the whole model and use that folder"
            )
    rank, alpha = attributes.get("r"), attributes.get("lora_alpha")
    if not _is_positive(rank) or not _is_positive(alpha) or not isinstance(rank, int):
        raise InputError(
            f"{path}: r, lora_alpha are {rank!r:.80}, {alpha!r:.80}; positive numbers are needed"
        )
    assert isinstance(alpha, int | float)
    base = attributes.get("base_model_name_or_path")
    if base is not None and not isinstance(base, str):
        raise InputError(f"{path}: base_model_name_or_path is {base!r:.80}; needed is a name")
    divisor = rank**0.5 if attributes.get("use_rslora") else rank
    return AdapterSettings(base or None, rank, float(alpha) / divisor)


def merge_adapters(
    folder: Path, config: RerankerConfig, parameters: dict[str, np.ndarray]
) -> tuple[RerankerConfig, frozenset[str]]:
    """Add a folder's adapters to the base's parameters, in place.

    Args:
        config: the base's, with the head that is wanted.
        parameters: the base's, by flat paths.

    Returns:
        The architecture, with the vocabulary of the token table that the folder holds, if it does;
        and the paths of the parameters that it replaces.

    Raises:
        InputError: adapters of other layers or shapes, a half of a pair, a tensor without a place.
    """
    settings = read_settings(folder)
    path = folder / ADAPTER_WEIGHTS_FILE
    if not path.is_file():
        raise InputError(f"{folder}: holds no {ADAPTER_WEIGHTS_FILE}; save it as safetensors")
    weights = open_file(path)
    table = ARCHITECTURES[config.family].tables[config.head]
    places = dict(_places(table, parameters))
    pairs, replaced = _sort_names(table, places, weights.shapes, path)
    grown = config
    for canonical, name in replaced.items():
        grown = _replace(
            places[canonical], weights.read(name), parameters, grown, f"{path}: {name}"
        )
    for canonical, pair in pairs.items():
        a, b = weights.read(pair["a"]), weights.read(pair["b"])
        _add(places[canonical], a, b, parameters, settings, config, f"{path}: {pair['a']}")
    return grown, frozenset(places[canonical].rule.ours for canonical in replaced)


def _sort_names(
    table: WeightTable, places: Mapping[str, _Place], names: Iterable[str], path: Path
) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Canonical name of a weight -> the names of its adapter's halves, or of the whole tensor."""
    pairs: dict[str, dict[str, str]] = {}
    replaced: dict[str, str] = {}
    unused = []
    for name in names:
        module, part = _split_name(name)
        canonical = canonical_name(table, f"{module}.weight" if part else module)
        if canonical not in places:
            unused.append(name)
        elif part:
            pairs.setdefault(canonical, {})[part] = name
        else:
            replaced[canonical] = name
    halves = [name for pair in pairs.values() if len(pair) == 1 for name in pair.values()]
    if unused or halves:
        problems = describe({"not used": unused, "without its other half": halves})
        raise InputError(f"{path}: {problems}; do the adapters belong to this base?")
    return pairs, replaced


def _replace(
    place: _Place,
    value: np.ndarray,
    parameters: dict[str, np.ndarray],
    config: RerankerConfig,
    where: str,
) -> RerankerConfig:
    """Put a whole tensor in the base's place; a token table may have other rows."""
    rule, layer = place
    ours = rule.transform.to_ours(value)
    target = parameters[rule.ours] if layer is None else parameters[rule.ours][layer]
    if layer is not None and ours.shape == target.shape:
        target[...] = ours
        return config
    if ours.shape != target.shape:
        backbone = dataclasses.replace(config.backbone, vocab_size=max(1, len(value)))
        config = dataclasses.replace(config, backbone=backbone)
        if parameter_shapes(config)[rule.ours].shape != ours.shape:
            raise InputError(f"{where}: is {ours.shape}; the base has {target.shape}")
    parameters[rule.ours] = np.ascontiguousarray(ours)
    return config


def _add(
    place: _Place,
    a: np.ndarray,
    b: np.ndarray,
    parameters: dict[str, np.ndarray],
    settings: AdapterSettings,
    config: RerankerConfig,
    where: str,
) -> None:
    """Add one adapter to its layer."""
    rule, layer = place
    target = parameters[rule.ours] if layer is None else parameters[rule.ours][layer]
    if is_table(rule) and config.backbone.decoder_layers is not None:
        raise InputError(f"{where}: both stacks read this table, and peft adapts one; not read")
    if rule.transform is not (IDENTITY if is_table(rule) else TRANSPOSE):
        raise InputError(f"{where}: adapts no linear layer and no token table; not read")
    # Theirs is (out, rank) x (rank, in); ours, and the table (rows, width), is that transposed.
    shapes = (settings.rank, target.shape[0]), (target.shape[1], settings.rank)
    if (a.shape, b.shape) != shapes:
        raise InputError(f"{where}: the pair is {a.shape}, {b.shape}; this base needs {shapes}")
    target += np.float32(settings.scaling) * (b @ a).T


def _is_positive(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 < value <= _LARGEST


def _places(
    table: WeightTable, parameters: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, _Place]]:
    """Their canonical name of every tensor of a model, and its place."""
    for rule in table.rules:
        if rule.ours not in parameters:
            continue
        if not rule.is_stacked:
            yield rule.theirs, _Place(rule, None)
            continue
        for layer in range(len(parameters[rule.ours])):
            name = rule.theirs.replace("{layer}", str(rule.first_layer + layer))
            yield name, _Place(rule, layer)


def _split_name(name: str) -> tuple[str, str]:
    """Module and half of a pair; or the name of a whole tensor and nothing."""
    name = name.removeprefix(PREFIX)
    for ending, part in _PARTS.items():
        if name.endswith(f".{ending}"):
            return name.removesuffix(f".{ending}"), part
    return re.sub(r"\.(base_layer|modules_to_save)(?=\.)", "", name), ""
