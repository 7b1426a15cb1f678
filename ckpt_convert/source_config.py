"""config.json of a model folder to our configuration and back, by an allow-list of our own.

Transformers' AutoConfig is never asked: a config.json can name code to run.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast

from ckpt_convert import mamba, mamba2
from ckpt_convert.architecture import Architecture
from ckpt_convert.architectures import ARCHITECTURES
from ckpt_convert.config_format import INFINITY, read_config, write_config
from ckpt_convert.huggingface import HUGGING_FACE_REFUSED
from jaxrank.errors import InputError
from jaxrank.files import read_json
from jaxrank.models.families import get_family
from jaxrank.models.module import HeadName, RerankerConfig
from jaxrank.text.templates import TextConfig

CONFIG_FILE = "config.json"
FORMAT_VERSION = 1
"""Of what we keep under "jaxrank" in config.json; rises when older code could misread it."""

Layout = Literal["hugging-face", "state-spaces"]

_LARGEST_FILE = 4 << 20
_IDENTITY = "torch.nn.modules.linear.Identity"
_STATE_SPACES = {
    "Mamba1": ("mamba", mamba.STATE_SPACES_CONFIG),
    "Mamba2": ("mamba2", mamba2.STATE_SPACES_CONFIG),
}
"""Their name of a mixer -> our name of the family, and the format of the folder."""


@dataclass(frozen=True)
class SourceConfig:
    """What a config.json says.

    Attributes:
        config: the architecture, with the head that was asked for or that the folder has.
        text: how the folder was trained to read pairs; None if it does not say.
        layout: which library wrote the file.
        has_head: whether the folder must hold the weights of `config.head`.
        has_other_head: whether it holds those of another kind of head.
        has_trained_head: False if those weights are a random start that `save` wrote.
        notes: what a user should know of it.
    """

    config: RerankerConfig
    text: TextConfig | None
    layout: Layout
    has_head: bool
    has_other_head: bool = False
    has_trained_head: bool = True
    notes: tuple[str, ...] = ()


def read_source_config(folder: Path, *, head: str | None = None) -> SourceConfig:
    """Read a model folder's config.json.

    Args:
        head: ask for this head instead of the folder's own.

    Raises:
        InputError: no such file, an unknown family, or attributes that are missing, unknown or
            not supported, by name.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise InputError(f"{folder}: holds no {CONFIG_FILE}; a model folder needs one")
    if path.stat().st_size > _LARGEST_FILE:
        raise InputError(f"{path}: larger than {_LARGEST_FILE} bytes; no config.json is")
    attributes = read_json(path)
    if "model_type" not in attributes and {"d_model", "n_layer"} <= attributes.keys():
        return _read_state_spaces(path, attributes, head)
    return _read_hugging_face(path, attributes, head)


def write_source_config(
    config: RerankerConfig,
    text: TextConfig,
    *,
    token_ids: Mapping[str, int | None] = MappingProxyType({}),
    has_trained_head: bool = True,
) -> str:
    """The text of a config.json that transformers, sentence-transformers and we read.

    Args:
        token_ids: the tokenizer's, e.g. pad_token_id; those that the architecture itself knows
            come from `config`.
        has_trained_head: as in `save`.
    """
    architecture = ARCHITECTURES[config.family]
    attributes = {
        "architectures": [architecture.classes[config.head]],
        "model_type": config.family,
        "dtype": "float32",
        **token_ids,
        **write_config(architecture.config, config.backbone),
    }
    if config.head == "classification":
        if architecture.classifier_dropout is not None:
            attributes["classifier_dropout"] = config.head_dropout
        attributes |= {
            "id2label": {"0": "LABEL_0"},
            "label2id": {"LABEL_0": 0},
            "sentence_transformers": {"activation_fn": _IDENTITY},
        }
    attributes["jaxrank"] = {
        "format_version": FORMAT_VERSION,
        "family": config.family,
        "head": config.head,
        "head_dropout": config.head_dropout,
        "has_trained_head": has_trained_head,
        **dataclasses.asdict(text),
    }
    strict = _without_infinity(attributes)
    return json.dumps(strict, indent=2, sort_keys=True, allow_nan=False) + "\n"


def _without_infinity(value: Any) -> Any:
    """The value with what transformers writes for infinity, which JSON has not."""
    if isinstance(value, dict):
        return {name: _without_infinity(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_infinity(inner) for inner in value]
    return INFINITY if value == float("inf") else value


def _read_hugging_face(path: Path, attributes: dict[str, Any], head: str | None) -> SourceConfig:
    for name, why in HUGGING_FACE_REFUSED.items():
        if attributes.get(name):
            raise InputError(f"{path}: {name}: {why}")
    family = attributes.get("model_type")
    if not isinstance(family, str) or family not in ARCHITECTURES:
        nearest = get_close_matches(str(family), ARCHITECTURES, n=1, cutoff=0.75)
        hint = f" (did you mean {nearest[0]}?)" if nearest else ""
        raise InputError(
            f"{path}: model_type is {str(family)[:80]!r}; supported are "
            f"{', '.join(ARCHITECTURES)}{hint}"
        )
    architecture = ARCHITECTURES[family]
    ours = _read_jaxrank(path, attributes.get("jaxrank"), family)
    stored = _stored_head(path, attributes, architecture, ours)
    head = _known_head(head or stored or _default_head(architecture), family, where=str(path))
    if head == stored == "classification":
        _check_labels(path, attributes)
    config_class = get_family(family).config_class
    backbone = read_config(architecture.config, attributes, config_class, where=str(path))
    dropout = ours.get("head_dropout", attributes.get("classifier_dropout"))
    if dropout is None:
        dropout = _default_dropout(architecture, backbone, head)
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise InputError(
            f"{path}: classifier_dropout is {dropout!r:.80}; needed is a number in [0, 1)"
        )
    if head == "classification" and architecture.classifier_dropout is None and not ours:
        dropout = 0.0  # GPT-NeoX's config.json names the rate of a class for tokens
    return SourceConfig(
        config=RerankerConfig(family, backbone, head, float(dropout)),
        text=_text(path, ours) if ours else None,
        layout="hugging-face",
        has_head=head == stored,
        has_other_head=stored not in (None, head),
        has_trained_head=ours.get("has_trained_head") is not False,
        notes=_activation_note(attributes) if head == stored else (),
    )


def _read_state_spaces(path: Path, attributes: dict[str, Any], head: str | None) -> SourceConfig:
    mixer = attributes.get("ssm_cfg")
    layer = mixer.get("layer", "Mamba1") if isinstance(mixer, dict) else "Mamba1"
    if layer not in _STATE_SPACES:
        raise InputError(
            f"{path}: ssm_cfg.layer is {layer!r:.80}; known are {', '.join(_STATE_SPACES)}"
        )
    family, config_format = _STATE_SPACES[layer]
    _known_head(head or "linear", family, where=str(path))
    config_class = get_family(family).config_class
    backbone = read_config(config_format, attributes, config_class, where=str(path))
    multiple = attributes.get("pad_vocab_size_multiple", 8)
    if isinstance(multiple, bool) or not isinstance(multiple, int) or not 1 <= multiple <= 65536:
        raise InputError(f"{path}: pad_vocab_size_multiple is {multiple!r}; needed is 1 to 65536")
    rows = -(-backbone.vocab_size // multiple) * multiple
    backbone = dataclasses.replace(backbone, vocab_size=rows)
    config = RerankerConfig(family, backbone, "linear")
    return SourceConfig(config, text=None, layout="state-spaces", has_head=False)


def _read_jaxrank(path: Path, ours: Any, family: str) -> dict[str, Any]:
    """What an earlier save left under "jaxrank"; nothing in a foreign folder."""
    if ours is None:
        return {}
    if not isinstance(ours, dict):
        raise InputError(f"{path}: jaxrank is {ours!r:.80}; needed is an object")
    if ours.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{path}: jaxrank.format_version is {ours.get('format_version')!r:.80}; this release "
            f"reads {FORMAT_VERSION}"
        )
    known = {"format_version", "family", "head", "head_dropout", "has_trained_head"}
    known |= {field.name for field in dataclasses.fields(TextConfig)}
    if ours.keys() != known:
        differing = ", ".join(sorted(str(name)[:80] for name in ours.keys() ^ known))
        raise InputError(f"{path}: jaxrank has missing or unknown keys: {differing}")
    if ours["family"] != family:
        raise InputError(f"{path}: jaxrank.family is {ours['family']!r:.80}, model_type {family!r}")
    return ours


def _stored_head(
    path: Path, attributes: Mapping[str, Any], architecture: Architecture, ours: dict[str, Any]
) -> str | None:
    """The head whose weights the folder must hold, or None for a bare backbone."""
    if ours:
        return str(ours["head"])
    names = attributes.get("architectures") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: architectures is {names!r:.80}; needed is a list of names")
    for name in names:
        if name in architecture.refused:
            raise InputError(f"{path}: architectures: {name} {architecture.refused[name]}")
    published = architecture.classes.get("classification")
    return "classification" if published in names else None


def _default_head(architecture: Architecture) -> str:
    """The one that PyTorch can read back, where there is one."""
    return "classification" if "classification" in architecture.classes else "linear"


def _default_dropout(architecture: Architecture, backbone: Any, head: HeadName) -> float:
    """In the head of a folder that names no rate: transformers' own, or the papers'."""
    rate = architecture.classifier_dropout
    if isinstance(rate, str):
        return float(getattr(backbone, rate))
    return RerankerConfig.head_dropout if head == "linear" else rate or 0.0


def _known_head(head: str, family: str, *, where: str) -> HeadName:
    if head not in ARCHITECTURES[family].tables:
        known = ", ".join(ARCHITECTURES[family].tables)
        raise InputError(f"{where}: no head {head!r:.80} for {family}; there is {known}")
    return cast(HeadName, head)


def _check_labels(path: Path, attributes: Mapping[str, Any]) -> None:
    """A reranker gives one score; transformers' own default is two labels."""
    id2label = attributes.get("id2label")
    if isinstance(id2label, dict):
        count: Any = len(id2label)
    else:
        count = attributes.get("num_labels", attributes.get("_num_labels", 2))
    if count != 1:
        raise InputError(
            f"{path}: num_labels/id2label: the classifier has {count!r:.80} labels, a reranker "
            "needs one; ask for --head linear to start a new head on this backbone"
        )


def _activation_note(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    section = attributes.get("sentence_transformers")
    newer = section.get("activation_fn") if isinstance(section, dict) else None
    name = newer or attributes.get("sbert_ce_default_activation_function")
    if name in (None, _IDENTITY):
        return ()
    return (
        f"sentence-transformers puts {str(name)[:80].rpartition('.')[2]} on this model's scores; "
        "here they are raw (the order is the same)",
    )


def _text(path: Path, values: dict[str, Any]) -> TextConfig:
    template, max_length, query_length = (
        values[name] for name in ("template", "max_length", "query_length")
    )
    is_fine = isinstance(template, str) and _is_count(max_length)
    if not is_fine or not (query_length is None or _is_count(query_length)):
        raise InputError(
            f"{path}: jaxrank.template, max_length, query_length are {template!r:.80}, "
            f"{max_length!r:.80}, {query_length!r:.80}; needed are a name, a length, a length or "
            "null"
        )
    return TextConfig(template=template, max_length=max_length, query_length=query_length)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
