"""A model folder or hub id as our configuration, parameters, tokenizer and text settings."""

import dataclasses
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

from ckpt_convert.architectures import ARCHITECTURES
from ckpt_convert.fresh_parameters import (
    add_template_tokens,
    draw_parameters,
    grow_embedding,
)
from ckpt_convert.pickle_files import PICKLE_FILE, PICKLE_INDEX_FILE, opened_weights
from ckpt_convert.rules import import_weights
from ckpt_convert.source_config import SourceConfig, read_source_config
from ckpt_convert.weight_files import check_no_adapter, has_safetensors
from jaxrank.errors import InputError
from jaxrank.models.families import get_family
from jaxrank.models.module import RerankerConfig, parameter_shapes
from jaxrank.text.added_tokens import vocabulary_size
from jaxrank.text.templates import TextConfig, resolve_template
from jaxrank.text.tokenize import PairTokenizer, load_tokenizer

_DEFAULT_LENGTH = 512  # the papers'
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]*(/[A-Za-z0-9][\w.\-]*)?")
_TOKENIZER_FILES = ("tokenizer.json", "*_tokenizer.json", "vocab.txt", "vocab.json", "spiece.model")
_HUB_FILES = (
    "config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "adapter_config.json",
    *_TOKENIZER_FILES,
)
_HUB_PICKLES = (PICKLE_INDEX_FILE, PICKLE_FILE, "pytorch_model-*.bin")


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
        added_tokens: what the template added to the vocabulary just now, so that no training has
            seen it.
    """

    config: RerankerConfig
    parameters: dict[str, np.ndarray]
    tokenizer: PreTrainedTokenizerFast
    text: TextConfig
    notes: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    added_tokens: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoadedNetwork:
    """A network read from disk, without what it takes to read text; fields as in LoadedModel."""

    source: SourceConfig
    parameters: dict[str, np.ndarray]
    notes: tuple[str, ...]
    fresh: tuple[str, ...]


def load(
    source: str | Path,
    *,
    head: str | None = None,
    seed: int = 0,
    tokenizer: str | Path | None = None,
    text: TextConfig | None = None,
    max_length: int | None = None,
    allow_pickle: bool = False,
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
        allow_pickle: whether pytorch_model.bin may be read where there are no safetensors; needs
            PyTorch, which reads it in a process of its own and takes only tensors from it.

    Raises:
        InputError: whatever does not fit: attributes, names, shapes, NaN, a tokenizer larger than
            the embedding; in one line that names it.
    """
    folder = find_folder(source, allow_pickle=allow_pickle)
    network = load_network(folder, head=head, seed=seed, allow_pickle=allow_pickle)
    config = network.source.config
    loaded_tokenizer = load_tokenizer(tokenizer) if tokenizer else _own_tokenizer(folder)
    loaded = LoadedModel(
        config,
        network.parameters,
        loaded_tokenizer,
        default_text(config),
        notes=network.notes,
        fresh=network.fresh,
    )
    size = vocabulary_size(loaded_tokenizer)
    if size > config.backbone.vocab_size:
        raise InputError(
            f"{tokenizer or folder}: the tokenizer has {size} ids, the model's embedding "
            f"{config.backbone.vocab_size} rows; use the tokenizer that the model was trained with"
        )
    text = text or network.source.text or loaded.text
    if text is loaded.text and network.source.has_head:
        # A published classifier was trained on its tokenizer's own pairs, whatever its family.
        text = dataclasses.replace(text, template="pair")
    if max_length is not None:
        text = dataclasses.replace(text, max_length=max_length)
    return with_text(loaded, text, seed=seed)


def with_text(loaded: LoadedModel, text: TextConfig, *, seed: int = 0) -> LoadedModel:
    """The same model, reading its texts in another way.

    Tokens that the template adds to the vocabulary get rows in the embedding, drawn by `seed`.

    Raises:
        InputError: the tokenizer cannot express the template, or the model lacks positions.
    """
    text = concrete(text, loaded.config)
    most = loaded.config.backbone.max_length
    if most is not None and text.max_length > most:
        raise InputError(f"max_length: got {text.max_length}; this model has {most} positions")
    config, tokenizer, added = add_template_tokens(loaded.config, loaded.tokenizer, text)
    PairTokenizer(tokenizer, text)  # refuses what this tokenizer cannot express
    if not added:
        return dataclasses.replace(loaded, text=text)
    note = f"added to the vocabulary for {text.template}, at random (seed {seed}): "
    return LoadedModel(
        config,
        grow_embedding(loaded.parameters, old=loaded.config, new=config, seed=seed),
        tokenizer,
        text,
        notes=(*loaded.notes, note + ", ".join(added)),
        fresh=loaded.fresh,
        added_tokens=(*loaded.added_tokens, *added),
    )


def load_network(
    folder: Path, *, head: str | None = None, seed: int = 0, allow_pickle: bool = False
) -> LoadedNetwork:
    """What `load` reads of a folder, without its tokenizer; arguments and errors as there."""
    check_no_adapter(folder)
    source = read_source_config(folder, head=head)
    config = source.config
    table = ARCHITECTURES[config.family].tables[config.head]
    if source.has_head:
        table = dataclasses.replace(table, may_start_fresh=())
    if source.has_other_head:
        # On decoders heads of both kinds are called `score`.
        other = (r"score\..+", "head of another kind than the one asked for")
        table = dataclasses.replace(table, ignored=(*table.ignored, other))
    wanted = {path: spec.shape for path, spec in parameter_shapes(config).items()}
    with opened_weights(folder, allow_pickle=allow_pickle) as weights:
        imported = import_weights(
            table, weights.shapes, weights.read, wanted=wanted, where=str(weights.where)
        )
    fresh = draw_parameters(config, imported.missing, seed)
    merged = {**imported.parameters, **fresh}
    notes = [*source.notes, *(f"passed over, {line}" for line in imported.ignored)]
    if fresh:
        names = ", ".join(sorted({path.rpartition(".")[0] for path in fresh}))
        notes.insert(0, f"score head started at random (seed {seed}): {names}")
    return LoadedNetwork(
        source,
        {path: merged[path] for path in wanted},
        notes=tuple(notes),
        fresh=tuple(fresh) if source.has_trained_head else _head_paths(wanted),
    )


def _head_paths(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(path for path in paths if path.startswith("head."))


def find_folder(source: str | Path, *, allow_pickle: bool = False) -> Path:
    """The folder itself, or the local copy of a hub id's files: never code, and pickles only where
    they are allowed and there is nothing else.
    """
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
        folder = Path(snapshot_download(str(source), allow_patterns=list(_HUB_FILES)))
        if allow_pickle and not has_safetensors(folder):
            snapshot_download(str(source), allow_patterns=list(_HUB_PICKLES))
        return folder
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
    most = config.backbone.max_length or _DEFAULT_LENGTH
    template = ARCHITECTURES[config.family].template
    text = TextConfig(template=template, max_length=min(_DEFAULT_LENGTH, most))
    return concrete(text, config)


def concrete(text: TextConfig, config: RerankerConfig) -> TextConfig:
    """`text` with the wording of its template that this family reads, and no name of a group."""
    wording = get_family(config.family).wording
    return dataclasses.replace(text, template=resolve_template(text.template, wording=wording))
