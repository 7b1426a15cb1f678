"""What the result of a training run depends on, so that a change of it is seen."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from jaxrank.data.collection import Collection
from jaxrank.files import Inputs, file_digest
from jaxrank.models.module import parameters
from jaxrank.training.config import Recipe
from jaxrank.training_run.start import Start


def inputs_by_option(recipe: Recipe) -> Inputs:
    """Option -> what it names that the run reads, which the run must not write over."""
    return {
        "--model.init_from": [recipe.model.init_from],
        "--data.groups": [recipe.data.groups],
        "--dev.run": [recipe.dev.run],
    }


def input_digests(recipe: Recipe, collection: Collection | None) -> dict[str, str]:
    """Path -> SHA-256 of the files that the result depends on."""
    files = {} if collection is None else collection.digest()
    digests = {f"{recipe.data.collection}/{name}": sha for name, sha in files.items()}
    paths = [recipe.data.groups]
    if recipe.dev.run is not None:
        paths.append(recipe.dev.run)
    if recipe.model.init_from is not None:
        start = Path(recipe.model.init_from)
        paths += sorted(start.glob("*.safetensors")) or sorted(start.glob("pytorch_model*.bin"))
    return digests | {str(path): file_digest(path) for path in paths}


def resolved_values(recipe: Recipe, start: Start) -> dict[str, Any]:
    """What the options came to: template, lengths, dtype, tokenizer and the model to start from."""
    values: dict[str, Any] = {"model.dtype": str(start.dtype)}
    for prefix, text in (("text.", start.text), ("text.evaluation_", start.evaluation_text)):
        values |= {
            f"{prefix}template": text.template,
            f"{prefix}max_length": text.max_length,
            f"{prefix}query_length": text.query_length,
        }
    return values | {
        "model.tokenizer": f"SHA-256 {tokenizer_digest(start.tokenizer)[:12]}",
        "model.init_from": f"SHA-256 {start_digest(recipe, start)[:12]}",
    }


def start_digest(recipe: Recipe, start: Start) -> str:
    """SHA-256 of the architecture, and of the parameters where a hub may give others next time.

    Those of a folder are among `input_digests`, those of a random start come of its seed.
    """
    digest = sha256(repr(start.config).encode())
    source = recipe.model.init_from
    if source is not None and not Path(source).is_dir():
        for name, array in sorted(parameters(start.module).items()):
            digest.update(name.encode())
            digest.update(np.asarray(array).tobytes())
    return digest.hexdigest()


def tokenizer_digest(tokenizer: PreTrainedTokenizerFast) -> str:
    """SHA-256 of all that decides which ids a text gets, wherever the tokenizer came from."""
    content: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    # Settings of the last call, which ours makes anew each time.
    for name in ("truncation", "padding"):
        content.pop(name, None)
    text = json.dumps([content, tokenizer.special_tokens_map], sort_keys=True, default=str)
    return sha256(text.encode()).hexdigest()
