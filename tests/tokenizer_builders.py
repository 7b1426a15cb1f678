"""Folders with a tokenizer of each kind: real ones from tests/data, small ones trained here.

The vocabularies of XLM-RoBERTa, Llama and ModernBERT are not ours to ship. Each gets a small
tokenizer of the same kind, learned from medquad-mini: the same normaliser, the same split into
words, the same special tokens at the same ends of the vocabulary, and the same pair encoding.
"""

import atexit
import json
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "tests" / "data" / "tokenizers"
_TEXTS = 400  # documents of medquad-mini; enough for a vocabulary of some 1,000
_VOCABULARY = 1000


@cache
def tokenizer_folder(kind: str) -> Path:
    """The folder of a real tokenizer, or of a small one of that kind, made once a process."""
    if (SHIPPED / kind).is_dir():
        return SHIPPED / kind
    folder = Path(tempfile.mkdtemp(prefix=f"jaxrank-{kind}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return BUILDERS[kind](folder)


def build_xlm_roberta(folder: Path) -> Path:
    """Unigram pieces behind <s> <pad> </s> <unk>, <mask> last; `<s> A </s></s> B </s>`."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=_VOCABULARY, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    roles = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "pad": "<pad>"}
    return _write(folder, tokenizer, {**roles, "unk": "<unk>", "mask": "<mask>"})


def build_llama(folder: Path) -> Path:
    """Byte-level BPE with its special tokens last; <|begin_of_text|> before each text.

    No token plays the pad, but as in Llama 3 there is one that is named for it.
    """
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    words = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    rest = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words + rest), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(_texts(), _bpe_trainer())
    start, end = "<|begin_of_text|>", "<|end_of_text|>"
    tokenizer.add_special_tokens([start, end, "<|finetune_right_pad_id|>"])
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(
                single=f"{start}:0 $A:0",
                pair=f"{start}:0 $A:0 {start}:1 $B:1",
                special_tokens=[(start, tokenizer.token_to_id(start))],
            ),
        ]
    )
    return _write(folder, tokenizer, {"bos": start, "eos": end})


def build_modernbert(folder: Path) -> Path:
    """Byte-level BPE with NFC and BERT's special tokens last; `[CLS] A [SEP] B [SEP]`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(_texts(), _bpe_trainer())
    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    roles = {token.strip("[]").lower(): token for token in special}
    return _write(folder, tokenizer, roles)


BUILDERS: dict[str, Callable[[Path], Path]] = {
    "xlm-roberta": build_xlm_roberta,
    "llama": build_llama,
    "modernbert": build_modernbert,
}
"""Kinds that are made here; the others are folders of tests/data/tokenizers."""


def _bpe_trainer() -> trainers.BpeTrainer:
    return trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )


def _texts() -> list[str]:
    lines = (ROOT / "examples/medquad-mini/corpus.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines[:_TEXTS]]


def _write(folder: Path, tokenizer: Tokenizer, roles: dict[str, str]) -> Path:
    """Both files, with the settings that such a published folder has."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "attention_mask"],
        **{f"{role}_token": token for role, token in roles.items()},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder
