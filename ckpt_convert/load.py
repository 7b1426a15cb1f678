"""A model folder or hub id as our configuration, parameters, tokenizer and text settings."""

import dataclasses
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from transformers import PreTrainedTokenizerFast

from ckpt_convert.rules import import_weights
from ckpt_convert.source_config import ARCHITECTURES, SourceConfig, read_source_config
from ckpt_convert.weight_files import open_weights
from jaxrank.errors import InputError
from jaxrank.models.module import RerankerConfig, init_module, parameter_shapes, parameters
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import PairTokenizer, load_tokenizer

_DEFAULT_LENGTH = 512  # the papers'
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]*(/[A-Za-z0-9][\w.\-]*)?")
_TOKENIZER_FILES = ("tokenizer.json", "*_tokenizer.json", "vocab.txt", "vocab.json")
_HUB_FILES = (
    "config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    *_TOKENIZER_FILES,
)


@dataclass(frozen=True)
class LoadedModel:
    """A reranker read from disk.

    Attributes:
        parameters: float32 arrays by the flat paths of `jaxrank.models.module.parameters`.
        text: the template and budgets it was trained with, or the family's defaults.
        notes: what a user should know, one line each: a head that starts at random, weights that
            were passed over.
        fresh: paths of the head's parameters that are at a random start: drawn by the seed now, or
            when the folder was written.
    """

    config: RerankerConfig
    parameters: dict[str, np.ndarray]
    tokenizer: PreTrainedTokenizerFast
    text: TextConfig
    notes: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()


def load(
    source: str | Path,
    *,
    head: str | None = None,
    seed: int = 0,
    tokenizer: str | Path | None = None,
    text: TextConfig | None = None,
    max_length: int | None = None,
) -> LoadedModel:
    """Read a published checkpoint or a folder that `save` wrote.

    Args:
        source: a folder with config.json and safetensors, from Hugging Face libraries, from
            state-spaces or from us; or a hub id, which is downloaded.
        head: "linear" or "classification"; by default the folder's own, or else the one that
            PyTorch can read back, where the family has it.
        seed: draws a head that the folder does not hold.
        tokenizer: folder, file or hub id, where the model folder holds none.
        text: template and budgets in place of the folder's own.
        max_length: longest sequence in tokens, in place of the folder's own or of `text`'s.

    Raises:
        InputError: whatever does not fit: attributes, names, shapes, NaN, a tokenizer larger than
            the embedding; in one line that names it.
    """
    folder = find_folder(source)
    read = read_source_config(folder, head=head)
    weights = open_weights(folder)
    table = ARCHITECTURES[read.config.family].tables[read.config.head]
    if read.has_head:
        table = dataclasses.replace(table, may_start_fresh=())
    wanted = {path: spec.shape for path, spec in parameter_shapes(read.config).items()}
    imported = import_weights(
        table, weights.shapes, weights.read, wanted=wanted, where=str(weights.where)
    )
    loaded_tokenizer = load_tokenizer(tokenizer) if tokenizer else _own_tokenizer(folder)
    text = _choose_text(read, text, max_length)
    size = PairTokenizer(loaded_tokenizer, text).vocabulary_size
    if size > read.config.backbone.vocab_size:
        raise InputError(
            f"{tokenizer or folder}: the tokenizer has {size} ids, the model's embedding "
            f"{read.config.backbone.vocab_size} rows; use the tokenizer that the model was "
            "trained with"
        )
    fresh = _fresh_parameters(read.config, imported.missing, seed)
    merged = {**imported.parameters, **fresh}
    notes = [*read.notes, *(f"passed over, {line}" for line in imported.ignored)]
    if fresh:
        names = ", ".join(sorted({path.rpartition(".")[0] for path in fresh}))
        notes.insert(0, f"score head started at random (seed {seed}): {names}")
    return LoadedModel(
        read.config,
        {path: merged[path] for path in wanted},
        loaded_tokenizer,
        text,
        notes=tuple(notes),
        fresh=tuple(fresh) if read.has_trained_head else _head_paths(wanted),
    )


def _head_paths(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(path for path in paths if path.startswith("head."))


def find_folder(source: str | Path) -> Path:
    """The folder itself, or the local copy of a hub id's files (never code, never pickles)."""
    folder = Path(source)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise InputError(f"{source}: a model folder is needed, this is a file")
    if not _HUB_ID.fullmatch(str(source)):
        raise InputError(f"{source}: no such folder")
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import logging as hub_logging

    hub_logging.set_verbosity(logging.ERROR)
    try:
        return Path(snapshot_download(str(source), allow_patterns=list(_HUB_FILES)))
    except Exception as error:  # a dozen kinds: no network, no such id, no access
        raise InputError(
            f"{source}: no such folder, and the Hugging Face hub did not give it "
            f"({type(error).__name__}); check the name or the network, or give a local folder"
        ) from None


def _own_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    if not any(True for pattern in _TOKENIZER_FILES for _ in folder.glob(pattern)):
        raise InputError(
            f"{folder}: holds no tokenizer; name one with --tokenizer (state-spaces' Mamba models "
            "use EleutherAI/gpt-neox-20b's)"
        )
    return load_tokenizer(folder)


def default_text(config: RerankerConfig) -> TextConfig:
    """Template and budgets of a family where nothing else is said."""
    most = getattr(config.backbone, "max_position_embeddings", None) or _DEFAULT_LENGTH
    template = ARCHITECTURES[config.family].template
    return TextConfig(template=template, max_length=min(_DEFAULT_LENGTH, most))


def _choose_text(
    read: SourceConfig, asked: TextConfig | None, max_length: int | None
) -> TextConfig:
    """What the caller asks for, else what the folder says, else the family's defaults."""
    most = getattr(read.config.backbone, "max_position_embeddings", None)
    text = asked or read.text or default_text(read.config)
    if max_length is not None:
        text = dataclasses.replace(text, max_length=max_length)
    if most is not None and text.max_length > most:
        raise InputError(f"max_length: got {text.max_length}; this model has {most} positions")
    return text


def _fresh_parameters(
    config: RerankerConfig, paths: tuple[str, ...], seed: int
) -> dict[str, np.ndarray]:
    """Those parameters of the random start of `seed`; the rest of it is never computed."""
    if not paths:
        return {}

    def draw() -> dict[str, jax.Array]:
        drawn = parameters(init_module(config, seed=seed))
        return {path: drawn[path] for path in paths}

    return {path: np.array(value) for path, value in jax.jit(draw)().items()}
