"""A network read from disk, without its tokenizer: a whole model, or adapters merged into one."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ckpt_convert.adapter_merging import merge_adapters, read_settings
from ckpt_convert.adapters import ADAPTER_WEIGHTS_FILE
from ckpt_convert.architectures import ARCHITECTURES
from ckpt_convert.fresh_parameters import draw_parameters
from ckpt_convert.huggingface import OTHER_HEAD
from ckpt_convert.pickle_files import PICKLE_FILE, PICKLE_INDEX_FILE, opened_weights
from ckpt_convert.rules import import_weights
from ckpt_convert.source_config import CONFIG_FILE, SourceConfig, read_source_config
from ckpt_convert.weight_files import ADAPTER_FILE, check_no_adapter, has_safetensors
from jaxrank.errors import InputError
from jaxrank.hub import fetch
from jaxrank.models.module import parameter_shapes

_TOKENIZER_FILES = ("tokenizer.json", "*_tokenizer.json", "vocab.txt", "vocab.json", "spiece.model")
_HUB_FILES = (
    "config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    ADAPTER_FILE,
    ADAPTER_WEIGHTS_FILE,
    *_TOKENIZER_FILES,
)
_HUB_PICKLES = (PICKLE_INDEX_FILE, PICKLE_FILE, "pytorch_model-*.bin")


@dataclass(frozen=True)
class LoadedNetwork:
    """A network read from disk, without what it takes to read text.

    Attributes:
        source: what its config.json says.
        parameters: float32 arrays by flat paths.
        notes, fresh: as those of LoadedModel.
    """

    source: SourceConfig
    parameters: dict[str, np.ndarray]
    notes: tuple[str, ...]
    fresh: tuple[str, ...]


def load_network(
    folder: Path, *, head: str | None = None, seed: int = 0, allow_pickle: bool = False
) -> LoadedNetwork:
    """What `load` reads of a folder with a whole model; arguments and errors as there."""
    check_no_adapter(folder)
    source = read_source_config(folder, head=head)
    config = source.config
    table = ARCHITECTURES[config.family].tables[config.head]
    if source.has_head:
        table = dataclasses.replace(table, may_start_fresh=())
    if source.has_other_head:
        # On decoders heads of both kinds are called `score`.
        other = (r"score\..+", OTHER_HEAD)
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


def load_adapted(
    folder: Path,
    base: Path,
    *,
    head: str | None = None,
    seed: int = 0,
    allow_pickle: bool = False,
) -> LoadedNetwork:
    """Adapters merged into their base.

    An adapter folder of ours holds the config.json of the merged model; PEFT's holds none, and
    the base's is the model's.
    """
    own = read_source_config(folder, head=head) if (folder / CONFIG_FILE).is_file() else None
    if own is not None:
        head = own.config.head
    network = load_network(base, head=head, seed=seed, allow_pickle=allow_pickle)
    source = network.source
    config, replaced = merge_adapters(folder, source.config, network.parameters)
    source = dataclasses.replace(source, config=config)
    if own is not None:
        if parameter_shapes(own.config) != parameter_shapes(config):
            raise InputError(f"{folder / CONFIG_FILE}: is not that of adapters merged into {base}")
        source = own
    head_at_random = "score head started at random"
    return LoadedNetwork(
        source,
        network.parameters,
        notes=(
            "low-rank adapters merged into their base",
            *(note for note in network.notes if not (replaced and note.startswith(head_at_random))),
        ),
        fresh=tuple(path for path in network.fresh if path not in replaced),
    )


def find_base(folder: Path, base: str | Path | None, *, allow_pickle: bool) -> Path:
    """The folder of the model that adapters change."""
    named = base or read_settings(folder).base
    hint = "name the model that they were trained on with --base"
    if named is None:
        raise InputError(f"{folder / ADAPTER_FILE}: names no base; {hint}")
    try:
        return find_folder(named, allow_pickle=allow_pickle)
    except InputError as error:
        raise InputError(f"{folder / ADAPTER_FILE}: its base: {error}; {hint}") from None


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds files of a tokenizer."""
    return any(True for pattern in _TOKENIZER_FILES for _ in folder.glob(pattern))


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
    folder = fetch(str(source), _HUB_FILES)
    if allow_pickle and not has_safetensors(folder):
        fetch(str(source), _HUB_PICKLES)
    return folder
