"""Low-rank adapters alone, in the layout of the PyTorch library PEFT.

A folder holds adapter_config.json and adapter_model.safetensors. An adapted layer's two tensors
are `base_model.model.<module>.lora_A.weight` (rank, in) and `lora_B.weight` (out, rank), those of a
token table `lora_embedding_A` and `lora_embedding_B`; tensors under their plain names replace those
of the base: the score head, and a token table that has grown. The weight tables say which module
of theirs is which of our layers. Every adapted layer is one module there, fused projections
included, so nothing is split or joined.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ckpt_convert.architectures import ARCHITECTURES
from ckpt_convert.rules import (
    IDENTITY,
    TRANSPOSE,
    Rule,
    WeightTable,
    export_weights,
)
from ckpt_convert.weight_files import ADAPTER_FILE, has_weights, write_weights
from jaxrank.models.lora import LoraConfig
from jaxrank.models.module import RerankerConfig

ADAPTER_WEIGHTS_FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What the names of all tensors begin with."""


@dataclass(frozen=True)
class Adapters:
    """Adapters to be written beside the model that they are merged into.

    Attributes:
        base: folder or hub id of the model that they change.
        lora: as they were trained.
        parameters: of the module before merging, by flat paths; only the adapters are used, and a
            token table that has more rows than the base's.
        base_vocabulary: rows of the base's token table.
    """

    base: str
    lora: LoraConfig
    parameters: Mapping[str, np.ndarray]
    base_vocabulary: int


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds adapters alone, without the model that they change."""
    return (folder / ADAPTER_FILE).is_file() and not has_weights(folder)


def write_adapters(
    folder: Path, adapters: Adapters, config: RerankerConfig, head: Mapping[str, np.ndarray]
) -> None:
    """Write the two files into an existing folder.

    Args:
        config: of the model that they are merged into.
        head: the score head's parameters, by flat paths.
    """
    table = ARCHITECTURES[config.family].tables[config.head]
    is_classifier = config.head == "classification"
    prefix = "" if is_classifier else _common_prefix(table)
    targets, tensors = _adapter_tensors(table, adapters)
    tensors |= _whole_tensors(table, {**head, **_grown_tables(adapters, config)}, targets)
    tensors = {f"{PREFIX}{name.removeprefix(prefix)}": a for name, a in tensors.items()}
    write_weights(folder, tensors, file_name=ADAPTER_WEIGHTS_FILE)
    lora = adapters.lora
    assert lora.rank is not None
    settings = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if is_classifier else "FEATURE_EXTRACTION",
        "base_model_name_or_path": adapters.base,
        "r": lora.rank,
        "lora_alpha": lora.scaling * lora.rank,
        "lora_dropout": lora.dropout,
        "target_modules": _target_modules(config, targets, prefix),
        "modules_to_save": _head_modules(table) if is_classifier else None,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    written = json.dumps(settings, indent=2, sort_keys=True) + "\n"
    (folder / ADAPTER_FILE).write_text(written, encoding="utf-8")


def _adapter_tensors(
    table: WeightTable, adapters: Adapters
) -> tuple[dict[str, Rule], dict[str, np.ndarray]]:
    """The rule of each adapted layer's weight, and the halves under the names that it gives."""
    rules = {rule.ours: rule for rule in table.rules}
    targets: dict[str, Rule] = {}
    tensors: dict[str, np.ndarray] = {}
    for path, value in adapters.parameters.items():
        layer, _, half = path.rpartition(".")
        if half not in ("lora_a", "lora_b"):
            continue
        rule = targets[layer] = rules.get(f"{layer}.kernel") or rules[f"{layer}.embedding"]
        assert rule.transform is (IDENTITY if is_table(rule) else TRANSPOSE)
        letter = half[-1].upper()
        part = f"lora_embedding_{letter}" if is_table(rule) else f"lora_{letter}.weight"
        name = f"{rule.theirs.removesuffix('.weight')}.{part}"
        tensors |= _export(Rule(path, name, TRANSPOSE, rule.first_layer), value)
    return targets, tensors


def _whole_tensors(
    table: WeightTable, values: Mapping[str, np.ndarray], targets: Mapping[str, Rule]
) -> dict[str, np.ndarray]:
    """Parameters that take the base's place; under an adapter, PEFT names them otherwise."""
    rules = {rule.ours: rule for rule in table.rules}
    tensors: dict[str, np.ndarray] = {}
    for path, value in values.items():
        layer, _, name = rules[path].theirs.rpartition(".")
        if path.rpartition(".")[0] in targets:
            layer += ".base_layer"
        tensors |= _export(dataclasses.replace(rules[path], theirs=f"{layer}.{name}"), value)
    return tensors


def _export(rule: Rule, value: np.ndarray) -> dict[str, np.ndarray]:
    return export_weights(WeightTable((rule,)), {rule.ours: value})


def _grown_tables(adapters: Adapters, config: RerankerConfig) -> dict[str, np.ndarray]:
    """The token table, where a template has added rows to the base's."""
    rows = config.backbone.vocab_size
    if rows == adapters.base_vocabulary:
        return {}
    named = adapters.parameters.items()
    return {p: value for p, value in named if p.endswith(".embedding") and len(value) == rows}


def is_table(rule: Rule) -> bool:
    """Whether it is the rule of a token table, and not of a linear layer."""
    return rule.ours.endswith(".embedding")


def _common_prefix(table: WeightTable) -> str:
    """What the classifier's names of the backbone begin with, and the bare model's do not."""
    names = [rule.theirs for rule in table.rules if rule.ours.startswith("backbone.")]
    first = {name.partition(".")[0] for name in names}
    return f"{first.pop()}." if len(first) == 1 else ""


def _target_modules(config: RerankerConfig, targets: Mapping[str, Rule], prefix: str) -> list[str]:
    """The adapted modules for PEFT, which takes the ends of names: the shortest that fit no other.

    Where every ending of a module's name fits another module too, all its layers are named.
    """
    adapted = {rule.theirs for rule in targets.values()}
    tables = ARCHITECTURES[config.family].tables.values()
    others = {rule.theirs for table in tables for rule in table.rules} - adapted
    names: set[str] = set()
    for layer, rule in targets.items():
        parts = rule.theirs.removesuffix(".weight").split(".")
        after_layer = parts.index("{layer}") + 1 if rule.is_stacked else 0
        endings = [".".join(parts[start:]) for start in range(len(parts) - 1, after_layer - 1, -1)]
        fitting = [e for e in endings if not any(_ends_with(name, e) for name in others)]
        if fitting:
            names.add(fitting[0])
            continue
        stack = config.backbone.decoder_layers if ".decoder." in layer else None
        count = stack or config.backbone.num_layers
        full = rule.theirs.removesuffix(".weight").removeprefix(prefix)
        names |= {full.replace("{layer}", str(n + rule.first_layer)) for n in range(count)}
    return sorted(names)


def _ends_with(tensor: str, ending: str) -> bool:
    return f".{tensor}".endswith(f".{ending}.weight")


def _head_modules(table: WeightTable) -> list[str]:
    """The head's modules for PEFT: the longest names that hold nothing of the backbone."""
    names = {True: set[str](), False: set[str]()}
    for rule in table.rules:
        names[rule.ours.startswith("head.")].add(rule.theirs)
    modules = set()
    for name in names[True]:
        parts = name.split(".")[:-1]
        starts = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
        modules.add(next(s for s in starts if not _holds_any(s, names[False])))
    return sorted(modules)


def _holds_any(module: str, names: Iterable[str]) -> bool:
    return any(name.startswith(f"{module}.") for name in names)
