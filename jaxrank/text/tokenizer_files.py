"""Fast tokenizers from a local folder or the Hugging Face hub, read by an allow-list of our own.

`AutoTokenizer` reads config.json and may run what a foreign one names; here only the files of the
tokenizer are read, and of its settings only the special tokens, `model_max_length` and
`model_input_names`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import (
    BertTokenizer,
    GPT2Tokenizer,
    PreTrainedTokenizerFast,
    RobertaTokenizer,
    T5Tokenizer,
)

from jaxrank.errors import InputError
from jaxrank.files import read_json, read_lines
from jaxrank.hub import fetch
from jaxrank.text.sentencepiece import read_sentencepiece

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
    "spiece.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
_SENTINELS = 100  # T5's <extra_id_99> to <extra_id_0>, which follow its pieces
# A tokenizer.json without settings (as in EleutherAI's own releases): tokens known by their text.
_KNOWN_TOKENS = (
    {"[CLS]": ("cls_token",), "[SEP]": ("sep_token",), "[PAD]": ("pad_token",)}
    | {"[UNK]": ("unk_token",), "[MASK]": ("mask_token",)}
    | {"<|endoftext|>": ("bos_token", "eos_token", "unk_token")}
    | {"<pad>": ("pad_token",), "<unk>": ("unk_token",), "</s>": ("eos_token",)}
)
# RoBERTa's, XLM-RoBERTa's and BART's put a pair between these two, T5's does not.
_ENCODER_TOKENS = {"bos_token": "<s>", "cls_token": "<s>", "sep_token": "</s>"}


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerFast:
    """A fast tokenizer from a folder, one tokenizer.json-like file, or a hub id.

    A folder holds `tokenizer.json` (or one `*_tokenizer.json`), or `vocab.txt` (BERT), or
    `vocab.json` and `merges.txt` (RoBERTa, OPT, GPT-2), or `spiece.model` (T5). Truncation and
    padding that a file carries are dropped: whoever tokenises decides them.

    Raises:
        InputError: nothing usable there, broken files, or a hub id that cannot be fetched.
    """
    path = Path(source)
    if path.is_file():
        return _from_json(path)
    folder = path if path.is_dir() else fetch(str(source), _FILES)
    files = sorted(folder.glob("*_tokenizer.json"))
    if (folder / "tokenizer.json").exists():
        return _from_json(folder / "tokenizer.json")
    if len(files) == 1:
        return _from_json(files[0])
    if (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        return _from_merges(folder)
    if (folder / "vocab.txt").exists():
        return _from_word_pieces(folder / "vocab.txt")
    if (folder / "spiece.model").exists():
        return _from_sentencepiece(folder / "spiece.model")
    raise InputError(
        f"{source}: holds no tokenizer; looked for tokenizer.json, one *_tokenizer.json, "
        "vocab.txt, vocab.json with merges.txt, or spiece.model"
    )


def _from_json(path: Path) -> PreTrainedTokenizerFast:
    with _readable(path):
        backend = Tokenizer.from_file(str(path))
    backend.no_truncation()
    backend.no_padding()
    settings = _settings(path.parent)
    if not any(role in settings for role in _ROLES):
        for token, roles in _KNOWN_TOKENS.items():
            if backend.token_to_id(token) is not None:
                settings |= dict.fromkeys(roles, token)
        pair = backend.encode("a", "a").tokens
        if pair[:1] == ["<s>"] and pair[-1:] == ["</s>"]:
            settings |= _ENCODER_TOKENS
    has_types = "cls_token" in settings and 1 in backend.encode("a", "a").type_ids
    if has_types and "model_input_names" not in settings:
        # A generic tokenizer class leaves out BERT's token types unless it is told of them.
        settings["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    with _readable(path):
        return PreTrainedTokenizerFast(tokenizer_object=backend, **settings)


def _from_word_pieces(path: Path) -> PreTrainedTokenizerFast:
    """BERT's vocab.txt; a vocabulary without a capital letter is an uncased one."""
    pieces = [line for _, line in read_lines(path)]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    missing = [token for token in ("[CLS]", "[SEP]", "[PAD]", "[UNK]") if token not in vocabulary]
    if missing:
        raise InputError(f"{path}: not a BERT vocabulary, it lacks {', '.join(missing)}")
    is_cased = any(piece != piece.lower() for piece in pieces if not piece.startswith("["))
    settings = _settings(path.parent)
    with _readable(path):
        return BertTokenizer(vocab=vocabulary, do_lower_case=not is_cased, **settings)


def _from_merges(folder: Path) -> PreTrainedTokenizerFast:
    """Byte-level BPE in two files, of which GPT-2's has no <mask>.

    OPT's two files are RoBERTa's to the byte: the folder says which of them it is, by the token
    that begins a text or by the model. OPT puts its </s> in front of every text.
    """
    vocabulary, settings = read_json(folder / "vocab.json"), _settings(folder)
    kind: type[PreTrainedTokenizerFast] = GPT2Tokenizer
    if "<mask>" in vocabulary:
        if settings.get("bos_token") == "</s>" or _model_type(folder) == "opt":
            names = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "</s>")
            settings = names | {"pad_token": "<pad>", "add_bos_token": True} | settings
        else:
            kind = RobertaTokenizer
    elif "<|endoftext|>" not in vocabulary:
        raise InputError(
            f"{folder / 'vocab.json'}: neither RoBERTa's or OPT's vocabulary nor GPT-2's; save "
            "the tokenizer as tokenizer.json"
        )
    merges = [line for _, line in read_lines(folder / "merges.txt") if line.strip()]
    if all(line.startswith("#version") for line in merges):
        raise InputError(f"{folder / 'merges.txt'}: holds no merges; every text would be letters")
    files = {"vocab": str(folder / "vocab.json"), "merges": str(folder / "merges.txt")}
    with _readable(f"{files['vocab']} with merges.txt"):
        return kind(**files, **settings)


def _from_sentencepiece(path: Path) -> PreTrainedTokenizerFast:
    """T5's pieces and the sentinels behind them, whose last has the lowest id."""
    pieces, charsmap = read_sentencepiece(path)
    if [text for text, _ in pieces[:3]] != ["<pad>", "</s>", "<unk>"]:
        raise InputError(f"{path}: not T5's pieces; save the tokenizer as tokenizer.json")
    sentinels = [(f"<extra_id_{number}>", 0.0) for number in reversed(range(_SENTINELS))]
    settings = _settings(path.parent)
    with _readable(path):
        return T5Tokenizer(
            vocab=[*pieces, *sentinels],
            extra_ids=_SENTINELS,
            _spm_precompiled_charsmap=charsmap,
            **settings,
        )


@contextmanager
def _readable(path: str | Path) -> Iterator[None]:
    """Turn whatever a tokenizer's constructor raises into one line; Rust raises bare Exception."""
    try:
        yield
    except Exception as error:
        first_line = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise InputError(f"{path}: not a readable tokenizer ({first_line:.200})") from None


def _model_type(folder: Path) -> str | None:
    """What config.json calls the model, and nothing else of it."""
    path = folder / "config.json"
    given = read_json(path).get("model_type") if path.exists() else None
    return given if isinstance(given, str) else None


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
        if type(length) is int and 0 < length < 10**9:  # 10^30 stands for none
            settings["model_max_length"] = length
        names = given.get("model_input_names")
        if isinstance(names, list) and all(name in _INPUT_NAMES for name in names):
            settings["model_input_names"] = names
    return settings
