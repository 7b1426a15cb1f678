"""A tokenizer fitted to its model, and as files that transformers and we read to the same ids."""

import copy
import json
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from jaxrank.models.module import RerankerConfig

_TYPES = "token_type_ids"
_ROLES = ("bos", "eos", "unk", "sep", "cls", "mask")


def fit_token_types(
    config: RerankerConfig, tokenizer: PreTrainedTokenizerFast
) -> PreTrainedTokenizerFast:
    """The tokenizer, or a copy that gives no token types where the model knows only type 0.

    RoBERTa and XLM-RoBERTa were trained on type 0 throughout; a tokenizer.json beside them that
    types a second text 1 would have the model look up a row that is not there.
    """
    has_one = getattr(config.backbone, "type_vocab_size", None) == 1
    if not has_one or _TYPES not in tokenizer.model_input_names:
        return tokenizer
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.model_input_names = [name for name in tokenizer.model_input_names if name != _TYPES]
    return tokenizer


def write_tokenizer(
    folder: Path, tokenizer: PreTrainedTokenizerFast, *, pad_token: str | None, max_length: int
) -> None:
    """Write tokenizer.json and tokenizer_config.json.

    Args:
        pad_token: what PyTorch libraries pad with, where the tokenizer itself names none or an
            unfit one.
        max_length: where PyTorch libraries cut.
    """
    backend = copy.deepcopy(tokenizer.backend_tokenizer)
    backend.no_truncation()
    backend.no_padding()
    # Its own `save` raises a bare Exception when the disk is full.
    (folder / "tokenizer.json").write_text(backend.to_str(pretty=True), encoding="utf-8")
    roles = {f"{role}_token": getattr(tokenizer, f"{role}_token") for role in _ROLES}
    roles["pad_token"] = pad_token
    settings = {
        # Reads tokenizer.json as it stands, where the class of a family would build a tokenizer
        # of its own from the vocabulary in it.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        # Whether a model is given token types: RoBERTa has none, T5 takes no such argument.
        "model_input_names": list(tokenizer.model_input_names),
        "padding_side": "right",
        "truncation_side": "right",
        **{role: str(token) for role, token in roles.items() if token is not None},
    }
    written = json.dumps(settings, indent=2, sort_keys=True) + "\n"
    (folder / "tokenizer_config.json").write_text(written, encoding="utf-8")
