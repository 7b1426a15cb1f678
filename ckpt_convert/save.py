"""A reranker as a Hugging Face folder, which is also how we keep it: exporting is saving."""

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from transformers import PreTrainedTokenizerFast

from ckpt_convert.rules import export_weights
from ckpt_convert.source_config import ARCHITECTURES, CONFIG_FILE, write_source_config
from ckpt_convert.weight_files import write_weights
from jaxrank.errors import InputError
from jaxrank.files import atomic_folder, check_target, file_digest, read_json
from jaxrank.models.module import RerankerConfig, parameter_shapes
from jaxrank.text.templates import TextConfig
from jaxrank.version import __version__

_SPECIAL_TOKENS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


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
) -> Path:
    """Write config.json, model.safetensors, the tokenizer and a README, all or nothing.

    Args:
        replace: whether an earlier model in that folder may be replaced. A folder that holds
            anything else is never touched.
        has_trained_head: False for a head at its random start, whose scores mean nothing: the
            folder says so, and can only be trained from.
        provenance: lines for the README: what the model was made from and how.

    Raises:
        InputError: the folder holds something else, or parameters that are not finite or do not
            fit the configuration.
    """
    folder = Path(folder)
    check_model_target(folder, replace=replace)
    values = {path: np.asarray(value) for path, value in parameters.items()}
    _check_parameters(config, values)
    tensors = export_weights(ARCHITECTURES[config.family].tables[config.head], values)
    with atomic_folder(folder) as new:
        weights = write_weights(new, tensors)
        (new / CONFIG_FILE).write_text(
            write_source_config(config, text, has_trained_head=has_trained_head), encoding="utf-8"
        )
        _write_tokenizer(new, tokenizer, text)
        count = sum(value.size for value in values.values())
        readme = _readme(folder.name, config, text, count, file_digest(weights), provenance)
        (new / "README.md").write_text(readme, encoding="utf-8")
    return folder


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


def _write_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerFast, text: TextConfig) -> None:
    """tokenizer.json and its settings; PyTorch libraries cut at `model_max_length`."""
    backend = copy.deepcopy(tokenizer.backend_tokenizer)
    backend.no_truncation()
    backend.no_padding()
    # Its own `save` raises a bare Exception when the disk is full.
    (folder / "tokenizer.json").write_text(backend.to_str(pretty=True), encoding="utf-8")
    roles = {f"{role}_token": getattr(tokenizer, f"{role}_token") for role in _SPECIAL_TOKENS}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": text.max_length,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "padding_side": "right",
        "truncation_side": "right",
        **{role: str(token) for role, token in roles.items() if token is not None},
    }
    text_of_settings = json.dumps(settings, indent=2, sort_keys=True) + "\n"
    (folder / "tokenizer_config.json").write_text(text_of_settings, encoding="utf-8")


_README = """\
---
library_name: {library}
pipeline_tag: text-ranking
tags:
- reranker
- cross-encoder
- {family}
- jax
---

# {name}

A {family} reranker ({count:,} parameters): a query and a document go in, one relevance score comes
out. Higher is more relevant; scores are raw, not probabilities.

```python
import jaxrank

model = jaxrank.Reranker.from_pretrained("{name}")
model.predict([("the query", "a document"), ("the query", "another document")])
```

In PyTorch:

```python
import {module}

model = {reader}
```
{remark}
## Input

Template `{template}`, at most {max_length} tokens; head `{head}`. Both are in `config.json` under
`jaxrank`.

## Provenance

{provenance}
"""

_HEAD_APART = """
The class gives hidden states. The score is `hidden @ score.weight.T + score.bias`, from
`model.safetensors`, at the {pooled} token.
"""


def _readme(
    name: str,
    config: RerankerConfig,
    text: TextConfig,
    count: int,
    digest: str,
    provenance: Sequence[str],
) -> str:
    reader = torch_reader(config, text)
    pooled = "first" if config.family == "bert" else "last real"
    lines = [*provenance, f"written by jaxrank {__version__}", f"weights sha256 {digest}"]
    return _README.format(
        library="sentence-transformers" if "CrossEncoder" in reader else "transformers",
        family=config.family,
        name=name,
        count=count,
        module=reader.partition(".")[0],
        reader=reader.format(folder=name),
        remark="" if config.head == "classification" else _HEAD_APART.format(pooled=pooled),
        template=text.template,
        max_length=text.max_length,
        head=config.head,
        provenance="\n".join(f"- {line}" for line in lines),
    )
