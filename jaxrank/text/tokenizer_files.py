"""Fast tokenizers from a local folder or the Hugging Face hub, read by an allow-list of our own.

`AutoTokenizer` reads config.json and may run what a foreign one names; here only the files of the
tokenizer are read, and of its settings only the special tokens, `model_max_length` and
`model_input_names`.
"""

import logging
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import BertTokenizer, GPT2Tokenizer, PreTrainedTokenizerFast, RobertaTokenizer

from jaxrank.errors import InputError
from jaxrank.files import read_json, read_lines

_ROLES = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
_INPUT_NAMES = ("input_ids", "token_type_ids", "attention_mask")
_FILES = (
    "tokenizer.json",
    "*_tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
# A tokenizer.json without settings (as in EleutherAI's own releases): tokens known by their text.
_KNOWN_TOKENS = (
    {"[CLS]": ("cls_token",), "[SEP]": ("sep_token",), "[PAD]": ("pad_token",)}
    | {"[UNK]": ("unk_token",), "[MASK]": ("mask_token",)}
    | {"<|endoftext|>": ("bos_token", "eos_token", "unk_token")}
    | {"<pad>": ("pad_token",), "<unk>": ("unk_token",), "</s>": ("eos_token",)}
)


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerFast:
    """A fast tokenizer from a folder, one tokenizer.json-like file, or a hub id.

    A folder holds `tokenizer.json` (or one `*_tokenizer.json`), or `vocab.txt` (BERT), or
    `vocab.json` and `merges.txt` (RoBERTa, GPT-2). Truncation and padding that a file carries
    are dropped: whoever tokenises decides them.

    Raises:
        InputError: nothing usable there, broken files, or a hub id that cannot be fetched.
    """
    path = Path(source)
    if path.is_file():
        return _from_json(path)
    folder = path if path.is_dir() else _download(str(source))
    files = sorted(folder.glob("*_tokenizer.json"))
    if (folder / "tokenizer.json").exists():
        return _from_json(folder / "tokenizer.json")
    if len(files) == 1:
        return _from_json(files[0])
    if (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        return _from_merges(folder)
    if (folder / "vocab.txt").exists():
        return _from_word_pieces(folder / "vocab.txt")
    raise InputError(
        f"{source}: holds no tokenizer; looked for tokenizer.json, one *_tokenizer.json, "
        "vocab.txt, or vocab.json with merges.txt"
    )


def _from_json(path: Path) -> PreTrainedTokenizerFast:
    try:
        backend = Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust side raises bare Exception
        raise InputError(f"{path}: not a readable tokenizer file ({error})") from None
    backend.no_truncation()
    backend.no_padding()
    settings = _settings(path.parent)
    if not any(role in settings for role in _ROLES):
        for token, roles in _KNOWN_TOKENS.items():
            if backend.token_to_id(token) is not None:
                settings |= dict.fromkeys(roles, token)
    has_types = "cls_token" in settings and 1 in backend.encode("a", "a").type_ids
    if has_types and "model_input_names" not in settings:
        # A generic tokenizer class leaves out BERT's token types unless it is told of them.
        settings["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=backend, **settings)


def _from_word_pieces(path: Path) -> PreTrainedTokenizerFast:
    """BERT's vocab.txt; a vocabulary without a capital letter is an uncased one."""
    pieces = [line for _, line in read_lines(path)]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    missing = [token for token in ("[CLS]", "[SEP]", "[PAD]", "[UNK]") if token not in vocabulary]
    if missing:
        raise InputError(f"{path}: not a BERT vocabulary, it lacks {', '.join(missing)}")
    is_cased = any(piece != piece.lower() for piece in pieces if not piece.startswith("["))
    return BertTokenizer(vocab=vocabulary, do_lower_case=not is_cased, **_settings(path.parent))


def _from_merges(folder: Path) -> PreTrainedTokenizerFast:
    """Byte-level BPE in two files: RoBERTa's vocabulary has <mask>, GPT-2's <|endoftext|> alone."""
    vocabulary = read_json(folder / "vocab.json")
    if "<mask>" in vocabulary:
        kind: type[PreTrainedTokenizerFast] = RobertaTokenizer
    elif "<|endoftext|>" in vocabulary:
        kind = GPT2Tokenizer
    else:
        raise InputError(
            f"{folder / 'vocab.json'}: neither RoBERTa's vocabulary nor GPT-2's; save the "
            "tokenizer as tokenizer.json"
        )
    files = {"vocab": str(folder / "vocab.json"), "merges": str(folder / "merges.txt")}
    return kind(**files, **_settings(folder))


def _settings(folder: Path) -> dict[str, Any]:
    """What we take from a folder's settings: special tokens, longest input, input names."""
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = folder / name
        if not path.exists():
            continue
        given = read_json(path)
        for role in _ROLES:
            token = given.get(role)
            content = token.get("content") if isinstance(token, dict) else token
            if content is not None and not isinstance(content, str):
                raise InputError(f"{path}: {role}: got {token!r}; a string is needed")
            if content is not None:
                settings[role] = content
        length = given.get("model_max_length")
        if isinstance(length, int) and 0 < length < 10**9:
            settings["model_max_length"] = length
        names = given.get("model_input_names")
        if isinstance(names, list) and all(name in _INPUT_NAMES for name in names):
            settings["model_input_names"] = names
    return settings


def _download(source: str) -> Path:
    """The hub's tokenizer files of `source`, or the local copy of an earlier download."""
    if source.count("/") > 1 or source.startswith((".", "/", "~")):
        raise InputError(f"{source}: no such folder")
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import logging as hub_logging

    hub_logging.set_verbosity(logging.ERROR)
    try:
        return Path(snapshot_download(source, allow_patterns=list(_FILES)))
    except Exception as error:  # a dozen kinds: no network, no such id, no access
        raise InputError(
            f"{source}: no such folder, and the Hugging Face hub did not give it "
            f"({type(error).__name__}); check the name or the network, or give a local folder"
        ) from None
