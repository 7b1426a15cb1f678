"""A reranker as a Hugging Face folder, which is also how we keep it: exporting is saving."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from transformers import PreTrainedTokenizerFast

from ckpt_convert.adapters import Adapters, write_adapters
from ckpt_convert.architectures import ARCHITECTURES
from ckpt_convert.readme import make_readme
from ckpt_convert.rules import export_weights
from ckpt_convert.source_config import CONFIG_FILE, write_source_config
from ckpt_convert.tokenizer_folder import write_tokenizer
from ckpt_convert.weight_files import WEIGHTS_FILE, write_weights
from jaxrank.errors import InputError
from jaxrank.files import atomic_folder, check_target, file_digest, read_json
from jaxrank.models.module import RerankerConfig, parameter_shapes
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import PairTokenizer

ADAPTER_FOLDER = "adapter"
"""Inside of a model folder: the adapters alone that were merged into it."""

_IDS = ("bos", "eos")  # beside the pad, which transformers' classifiers look for
_OTHER_IDS = ("cls", "sep")  # ModernBERT's class has its own vocabulary's for those left out


def save(
    folder: str | Path,
    *,
    config: RerankerConfig,
    parameters: Mapping[str, np.ndarray | jax.Array],
    tokenizer: PreTrainedTokenizerFast,
    text: TextConfig,
    replace: bool = True,
    has_trained_head: bool = True,
    provenance: Sequence[str] = (),
    adapters: Adapters | None = None,
) -> Path:
    """Write config.json, model.safetensors, the tokenizer and a README, all or nothing.

    Args:
        replace: whether an earlier model in that folder may be replaced. A folder that holds
            anything else is never touched.
        has_trained_head: False for a head at its random start, whose scores mean nothing: the
            folder says so, and can only be trained from.
        provenance: lines for the README: what the model was made from and how.
        adapters: those that are merged into the parameters, to be kept alone too, in the folder
            `adapter` inside.

    Raises:
        InputError: the folder holds something else, or parameters that are not finite or do not
            fit the configuration.
    """
    folder = Path(folder)
    check_model_target(folder, replace=replace)
    values = {path: np.asarray(value) for path, value in parameters.items()}
    _check_parameters(config, values)
    pairs = PairTokenizer(tokenizer, text)
    tensors = export_weights(ARCHITECTURES[config.family].tables[config.head], values)
    with atomic_folder(folder) as new:
        weights = write_weights(new, tensors)
        token_ids = {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in _IDS}
        others = {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in _OTHER_IDS}
        token_ids |= {name: value for name, value in others.items() if value is not None}
        pad_token = _choose_pad(tokenizer)
        if pad_token is not None:
            token_ids["pad_token_id"] = tokenizer.convert_tokens_to_ids(pad_token)
        written = write_source_config(
            config, text, token_ids=token_ids, has_trained_head=has_trained_head
        )
        (new / CONFIG_FILE).write_text(written, encoding="utf-8")
        write_tokenizer(new, tokenizer, pad_token=pad_token, max_length=text.max_length)
        if adapters is not None:
            _save_adapters(new, adapters, config, values)
        count = sum(value.size for value in values.values())
        readme = make_readme(
            folder.name,
            config,
            pairs,
            count=count,
            digest=file_digest(weights),
            provenance=provenance,
        )
        (new / "README.md").write_text(readme, encoding="utf-8")
    return folder


def _save_adapters(
    folder: Path, adapters: Adapters, config: RerankerConfig, values: Mapping[str, np.ndarray]
) -> None:
    """Adapters, score head and what it takes to read text, in a folder inside of the model's."""
    own = folder / ADAPTER_FOLDER
    own.mkdir()
    head = {path: value for path, value in values.items() if path.startswith("head.")}
    write_adapters(own, adapters, config, head)
    for file in folder.iterdir():
        if file.is_file() and file.name != WEIGHTS_FILE:
            shutil.copy(file, own)


def torch_reader(config: RerankerConfig, text: TextConfig) -> str:
    """The line of Python with which PyTorch libraries read such a folder, as `{folder}`."""
    if config.head == "classification" and text.template == "pair":
        return 'sentence_transformers.CrossEncoder("{folder}")'
    name = ARCHITECTURES[config.family].classes[config.head]
    return f'transformers.{name}.from_pretrained("{{folder}}")'


def check_model_target(folder: Path, *, replace: bool) -> None:
    """Raise InputError where `save` may not or cannot write."""
    check_target(folder, is_folder=True)
    if not folder.exists() or not any(folder.iterdir()):
        return
    is_ours = (folder / CONFIG_FILE).is_file() and "jaxrank" in read_json(folder / CONFIG_FILE)
    if not is_ours:
        raise InputError(f"{folder}: holds something else than a jaxrank model; choose another")
    if not replace:
        raise InputError(f"{folder}: holds a model already; choose another, or pass --replace")


def _check_parameters(config: RerankerConfig, values: Mapping[str, np.ndarray]) -> None:
    wanted = {path: spec.shape for path, spec in parameter_shapes(config).items()}
    given = {path: value.shape for path, value in values.items()}
    if given != wanted:
        differing = [
            f"{path} ({given.get(path)} for {wanted.get(path)})"
            for path in sorted(given.keys() | wanted.keys())
            if given.get(path) != wanted.get(path)
        ]
        raise InputError(f"parameters do not fit the configuration: {', '.join(differing)}")
    for path, value in values.items():
        if value.dtype != np.float32 or not np.isfinite(value).all():
            raise InputError(
                f"parameter {path}: NaN, infinity or dtype {value.dtype}; only finite float32 "
                "parameters are saved"
            )


def _choose_pad(tokenizer: PreTrainedTokenizerFast) -> str | None:
    """The pad token that a folder names: not the end of a text, where there is another.

    Transformers' classifiers on decoders score the last token that is no pad, and GPT-NeoX's and
    Llama's tokenizers name none, or name the end of a text.
    """
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder().values()
    named = [token.content for token in added if token.special and "pad" in token.content]
    choices = [tokenizer.pad_token, *named, tokenizer.unk_token, tokenizer.bos_token]
    others = [token for token in choices if token not in (None, tokenizer.eos_token)]
    return others[0] if others else tokenizer.eos_token
