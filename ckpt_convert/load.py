"""A model folder or hub id as our configuration, parameters, tokenizer and text settings."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

from ckpt_convert.adapters import is_adapter
from ckpt_convert.architectures import ARCHITECTURES
from ckpt_convert.fresh_parameters import (
    add_template_tokens,
    grow_embedding,
)
from ckpt_convert.network import find_base, find_folder, has_tokenizer, load_adapted, load_network
from ckpt_convert.source_config import SourceConfig
from ckpt_convert.tokenizer_folder import fit_token_types
from jaxrank.errors import InputError
from jaxrank.models.families import get_family
from jaxrank.models.module import RerankerConfig
from jaxrank.text.added_tokens import vocabulary_size
from jaxrank.text.templates import TextConfig, resolve_template, wordings_of
from jaxrank.text.tokenize import PairTokenizer, load_tokenizer

_DEFAULT_LENGTH = 512  # the papers'
_NO_LENGTH = 10**9  # transformers writes 10^30 for a tokenizer that states none
_STATE_SPACES_TOKENIZER = "EleutherAI/gpt-neox-20b"  # what state-spaces trained its models with


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


def load(
    source: str | Path,
    *,
    head: str | None = None,
    seed: int = 0,
    tokenizer: str | Path | None = None,
    text: TextConfig | None = None,
    max_length: int | None = None,
    allow_pickle: bool = False,
    base: str | Path | None = None,
) -> LoadedModel:
    """Read a published checkpoint or a folder that `save` wrote.

    Low-rank adapters are merged into the model that they were trained on.

    Args:
        source: a folder with config.json and safetensors, from Hugging Face libraries, from
            state-spaces or from us; or a hub id, which is downloaded. Or a folder of adapters
            alone, ours or PEFT's.
        head: "linear" or "classification"; by default the folder's own, or else the one that
            PyTorch can read back, where the family has it.
        seed: draws a head that the folder does not hold.
        tokenizer: folder, file or hub id, where the model folder holds none.
        text: template and budgets in place of the folder's own.
        max_length: longest sequence in tokens, in place of the folder's own or of `text`'s.
        allow_pickle: whether pytorch_model.bin may be read where there are no safetensors; needs
            PyTorch, which reads it in a process of its own and takes only tensors from it.
        base: folder or hub id of the model that adapters change, where it is not the one that they
            name.

    Raises:
        InputError: whatever does not fit: attributes, names, shapes, NaN, a tokenizer larger than
            the embedding; in one line that names it.
    """
    folder = find_folder(source, allow_pickle=allow_pickle)
    if is_adapter(folder):
        base_folder = find_base(folder, base, allow_pickle=allow_pickle)
        network = load_adapted(folder, base_folder, head=head, seed=seed, allow_pickle=allow_pickle)
        if not has_tokenizer(folder):
            folder = base_folder
    elif base is not None:
        raise InputError(f"{source}: is a whole model; only adapters have a base")
    else:
        network = load_network(folder, head=head, seed=seed, allow_pickle=allow_pickle)
    config = network.source.config
    notes = network.notes
    if tokenizer:
        found = load_tokenizer(tokenizer)
    else:
        found, more = _own_tokenizer(folder, network.source)
        notes += more
    size = vocabulary_size(found)
    if size > config.backbone.vocab_size:
        raise InputError(
            f"{tokenizer or folder}: the tokenizer has {size} ids, the model's embedding "
            f"{config.backbone.vocab_size} rows; use the tokenizer that the model was trained with"
        )
    if text is None:
        text, more = _own_text(network.source, found)
        notes += more if max_length is None else ()
    if max_length is not None:
        text = dataclasses.replace(text, max_length=max_length)
    loaded = LoadedModel(config, network.parameters, found, text, notes=notes, fresh=network.fresh)
    return with_text(loaded, text, seed=seed)


def with_text(loaded: LoadedModel, text: TextConfig, *, seed: int = 0) -> LoadedModel:
    """The same model, reading its texts in another way.

    Tokens that the template adds to the vocabulary get rows in the embedding, drawn by `seed`. A
    model with a single token type is given no others, whatever its tokenizer says.

    Raises:
        InputError: the tokenizer cannot express the template, or the model lacks positions.
    """
    text = concrete(text, loaded.config)
    most = loaded.config.backbone.max_length
    if most is not None and text.max_length > most:
        raise InputError(
            f"max_length: got {text.max_length}; this model has {most} positions (documents beyond "
            "them are ranked with MaxP: python -m jaxrank.rerank --long_documents maxp)"
        )
    tokenizer = fit_token_types(loaded.config, loaded.tokenizer)
    config, tokenizer, added = add_template_tokens(loaded.config, tokenizer, text)
    PairTokenizer(tokenizer, text)  # refuses what this tokenizer cannot express
    wording, meant = get_family(config.family).wording, wordings_of(text.template)
    if meant and wording not in meant:
        kinds = " and ".join(sorted(meant))
        note = (
            f"template {text.template} is worded for {kinds} models; {config.family} is {wording}"
        )
        loaded = dataclasses.replace(loaded, notes=(*loaded.notes, note))
    if not added:
        return dataclasses.replace(loaded, tokenizer=tokenizer, text=text)
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


def _own_tokenizer(
    folder: Path, source: SourceConfig
) -> tuple[PreTrainedTokenizerFast, tuple[str, ...]]:
    """The folder's tokenizer, or the one that all models of its publisher use; and a note of it."""
    if has_tokenizer(folder):
        return load_tokenizer(folder), ()
    if source.layout != "state-spaces":
        raise InputError(f"{folder}: holds no tokenizer; name one with --tokenizer")
    try:
        tokenizer = load_tokenizer(_STATE_SPACES_TOKENIZER)
    except InputError as error:
        raise InputError(
            f"{folder}: holds no tokenizer; name one with --tokenizer (state-spaces' models use "
            f"GPT-NeoX-20B's; {error})"
        ) from None
    return tokenizer, (f"the folder holds no tokenizer: took {_STATE_SPACES_TOKENIZER}'s",)


def _own_text(
    source: SourceConfig, tokenizer: PreTrainedTokenizerFast
) -> tuple[TextConfig, tuple[str, ...]]:
    """What a folder says of its texts, or what its kind of model reads; and a note of a guess.

    A published classifier was trained on its tokenizer's own pairs, whatever its family, and as
    long as positions and tokenizer allow: sentence-transformers' CrossEncoder takes that length.
    """
    if source.text:
        return source.text, ()
    if not source.has_head:
        return default_text(source.config), ()
    most, stated = source.config.backbone.max_length, tokenizer.model_max_length
    is_stated = stated < _NO_LENGTH
    length = stated if is_stated else _DEFAULT_LENGTH
    text = TextConfig(template="pair", max_length=min(length, most or length))
    if is_stated or text.max_length == most:
        return text, ()
    positions = f"of the model's {most:,}" if most else "though the model sets no limit"
    return text, (
        f"pairs are cut at {text.max_length} tokens, {positions}, since the tokenizer states no "
        "length; --max-length sets another",
    )


def default_text(config: RerankerConfig) -> TextConfig:
    """Template and budgets where nothing else is said.

    Transformers' heads read the tokenizer's own pairs, as sentence-transformers gives them to any
    classifier; with the papers' head the family says.
    """
    most = config.backbone.max_length or _DEFAULT_LENGTH
    is_linear = config.head == "linear"
    template = ARCHITECTURES[config.family].template if is_linear else "pair"
    text = TextConfig(template=template, max_length=min(_DEFAULT_LENGTH, most))
    return concrete(text, config)


def concrete(text: TextConfig, config: RerankerConfig) -> TextConfig:
    """`text` with the wording of its template that this family reads, and no name of a group."""
    wording = get_family(config.family).wording
    return dataclasses.replace(text, template=resolve_template(text.template, wording=wording))
