"""Saved tokenizers: transformers and we read the same ids and the same inputs back."""

import dataclasses
import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from ckpt_convert.tokenizer_folder import write_tokenizer
from jaxrank.models.families import FAMILIES
from jaxrank.text.added_tokens import add_tokens
from jaxrank.text.tokenize import PairTokenizer, load_tokenizer
from jaxrank.training.config import DataConfig, ModelConfig, Recipe, TrainingConfig
from jaxrank.training_run.start import load_start
from tests.tokenizer_builders import tokenizer_folder

KINDS = {
    "bert": "bert-base-uncased",
    "electra": "bert-base-uncased",
    "roberta": "roberta-base",
    "bart": "roberta-base",
    "xlm-roberta": "xlm-roberta",
    "modernbert": "modernbert",
    "opt": "opt",
    "gpt_neox": "gpt-neox-20b",
    "mamba": "gpt-neox-20b",
    "mamba2": "gpt-neox-20b",
    "llama": "llama",
    "t5": "t5",
}
QUERY = "What causes naïve  asthma\n\n?"
DOCUMENT = "A cough. Gene\tA <mask> [query] <s></s> [SEP] ﬁne "


@pytest.mark.parametrize("family", KINDS)
def test_transformers_and_we_read_a_saved_tokenizer_alike(family: str, tmp_path: Path):
    """The config beside it names the family, for which transformers has a class of its own."""
    source = add_tokens(load_tokenizer(tokenizer_folder(KINDS[family])), ["[query]"])
    write_tokenizer(tmp_path, source, pad_token=source.pad_token, max_length=64)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    for saved in (AutoTokenizer.from_pretrained(tmp_path), load_tokenizer(tmp_path)):
        assert saved(QUERY, DOCUMENT) == source(QUERY, DOCUMENT)
        assert saved.special_tokens_map == source.special_tokens_map
        assert saved.model_max_length == 64
        has_types = "token_type_ids" in saved(QUERY, DOCUMENT)
        assert has_types == (family in ("bert", "electra"))


def test_every_familys_tokenizer_is_saved_once():
    assert set(FAMILIES) == set(KINDS)


def test_a_pad_token_that_the_tokenizer_lacks_is_written(tmp_path: Path):
    source = load_tokenizer(tokenizer_folder("llama"))
    assert source.pad_token is None
    write_tokenizer(tmp_path, source, pad_token="<|end_of_text|>", max_length=64)
    saved = AutoTokenizer.from_pretrained(tmp_path)
    batch = saved([QUERY, "a"], padding=True)["input_ids"]
    assert batch[1][-1] == saved.pad_token_id == source.eos_token_id


def test_a_random_start_of_one_token_type_gives_its_tokenizer_no_other(tmp_path: Path):
    """BERT's tokenizer types the second text 1, and RoBERTa's table has the one row 0."""

    def has_types(family: str) -> bool:
        tokenizer = str(tokenizer_folder("bert-base-uncased"))
        overrides = {"vocab_size": 30522}
        recipe = Recipe(
            model=ModelConfig(
                family=family, preset=f"{family}-tiny", tokenizer=tokenizer, overrides=overrides
            ),
            data=DataConfig(groups=tmp_path / "groups.jsonl"),
            training=TrainingConfig(output=tmp_path / "run", steps=1),
        )
        start = load_start(recipe)
        text = dataclasses.replace(start.text, template="pair", max_length=16)
        (pair,) = PairTokenizer(start.tokenizer, text).encode([(QUERY, DOCUMENT)])
        return bool(pair.token_type_ids.any())

    assert has_types("bert")
    assert not has_types("roberta")


def test_the_tokenizer_that_is_saved_keeps_its_own_truncation(tmp_path: Path):
    source = load_tokenizer(tokenizer_folder("bert-base-uncased"))
    source(QUERY, truncation=True, max_length=4, padding="max_length")
    write_tokenizer(tmp_path, source, pad_token="[PAD]", max_length=64)
    written = json.loads((tmp_path / "tokenizer.json").read_text())
    assert written["truncation"] is written["padding"] is None
    assert source.backend_tokenizer.truncation["max_length"] == 4
