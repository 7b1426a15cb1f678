import json
from pathlib import Path

import huggingface_hub
import pytest
from transformers import AutoTokenizer

from jaxrank.errors import InputError
from jaxrank.text.tokenizer_files import load_tokenizer
from tests.tokenizer_builders import SHIPPED, tokenizer_folder

TEXT = "Does Crohn's disease affect ÆTHER-like naïve cells?"


def test_bert_loads_alike_from_json_and_from_its_vocabulary(
    bert_tokenizer_folder: Path, tmp_path: Path
):
    (tmp_path / "vocab.txt").write_bytes((bert_tokenizer_folder / "vocab.txt").read_bytes())
    from_vocabulary = load_tokenizer(tmp_path)
    from_json = load_tokenizer(bert_tokenizer_folder / "tokenizer.json")
    assert from_json(TEXT, TEXT) == from_vocabulary(TEXT, TEXT)
    assert 1 in from_json(TEXT, TEXT)["token_type_ids"]
    assert from_json.cls_token == from_vocabulary.cls_token == "[CLS]"
    assert from_json.pad_token_id == from_vocabulary.pad_token_id == 0


def test_a_vocabulary_with_capitals_is_a_cased_one(tmp_path: Path):
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "The", "the"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer("The the", add_special_tokens=False)["input_ids"] == [5, 6]


def test_a_bare_neox_file_has_its_end_of_sequence_and_no_padding(
    neox_tokenizer_folder: Path, tmp_path: Path
):
    data = (neox_tokenizer_folder / "tokenizer.json").read_bytes()
    (tmp_path / "20B_tokenizer.json").write_bytes(data)
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|endoftext|>", 0)
    assert tokenizer.pad_token is None
    assert tokenizer.cls_token is None


LETTERS = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "a": 4, "b": 5, "ab": 6, "<mask>": 7}
OPT_SETTINGS = {"tokenizer_config.json": '{"bos_token": "</s>", "eos_token": "</s>"}'}
OPT_CONFIG = {"config.json": '{"model_type": "opt"}'}
GPT2 = {"vocab.json": '{"a": 4, "b": 5, "ab": 6, "<|endoftext|>": 0}'}


@pytest.mark.parametrize(
    ("files", "ids", "pad"),
    [
        ({}, [0, 6, 2, 2, 4, 2], "<pad>"),
        (OPT_SETTINGS, [2, 6, 2, 4], "<pad>"),
        (OPT_CONFIG, [2, 6, 2, 4], "<pad>"),
        ({"config.json": '{"model_type": "roberta"}'}, [0, 6, 2, 2, 4, 2], "<pad>"),
        (GPT2, [6, 4], None),
    ],
    ids=["RoBERTa", "OPT by its settings", "OPT by its model", "RoBERTa's model", "GPT-2"],
)
def test_byte_level_bpe_loads_from_two_files(
    tmp_path: Path, files: dict, ids: list[int], pad: str | None
):
    (tmp_path / "vocab.json").write_text(json.dumps(LETTERS))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer("ab", "a")["input_ids"] == ids
    assert tokenizer.pad_token == pad


def test_opt_reads_its_files_as_transformers_does(tmp_path: Path):
    """Also where a published folder writes its tokens as objects."""
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((SHIPPED / "opt" / name).read_bytes())
    token = {"content": "</s>", "lstrip": False, "normalized": True, "__type": "AddedToken"}
    settings = {f"{role}_token": token for role in ("bos", "eos", "unk")}
    settings |= {"add_bos_token": True, "pad_token": "<pad>", "tokenizer_class": "GPT2Tokenizer"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "config.json").write_text('{"model_type": "opt"}')
    ours = (load_tokenizer(tmp_path), load_tokenizer(SHIPPED / "opt"))
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for tokenizer in ours:
        assert tokenizer(TEXT, TEXT) == theirs(TEXT, TEXT)
        assert tokenizer.special_tokens_map == theirs.special_tokens_map
    assert theirs(TEXT)["input_ids"][0] == 2


def test_t5_pieces_come_first_and_its_sentinels_last():
    tokenizer = load_tokenizer(SHIPPED / "t5")
    ids = [0, 1, 2, 31999, 32000, 32099]
    pieces = ["<pad>", "</s>", "<unk>", "▁Internațional", "<extra_id_99>", "<extra_id_0>"]
    assert tokenizer.convert_ids_to_tokens(ids) == pieces
    # As the sentencepiece library has it: "ﬁ" is normalised, "ï" is unknown, spaces are one.
    assert tokenizer("Hello  world, naïve ﬁne")["input_ids"] == [
        8774, 296, 6, 3, 29, 9, 2, 162, 1399, 1
    ]  # fmt: skip
    assert tokenizer("a", "a")["input_ids"].count(tokenizer.eos_token_id) == 2


@pytest.mark.parametrize("kind", ["roberta-base", "xlm-roberta"])
def test_a_bare_file_tells_an_encoders_tokens_by_the_ends_of_its_pairs(kind: str, tmp_path: Path):
    """Published folders of RoBERTa, BART and XLM-RoBERTa name none of their tokens."""
    known = load_tokenizer(tokenizer_folder(kind))
    known.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 512}')
    bare = load_tokenizer(tmp_path)
    for role in ("bos", "cls", "sep", "eos", "pad", "unk"):
        assert getattr(bare, f"{role}_token") == getattr(known, f"{role}_token"), role
    assert bare(TEXT, TEXT) == known(TEXT, TEXT)


def test_a_bare_t5_file_has_no_cls_token(tmp_path: Path):
    load_tokenizer(SHIPPED / "t5").backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.cls_token, tokenizer.sep_token) == (None, None)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("</s>", "<pad>")


def test_only_allowed_settings_are_taken_and_truncation_in_the_file_is_dropped(
    bert_tokenizer_folder: Path, tmp_path: Path
):
    tokenizer = json.loads((bert_tokenizer_folder / "tokenizer.json").read_text())
    tokenizer["truncation"] = {
        "direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0
    }  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = {
        "cls_token": {"content": "[CLS]", "lstrip": False},
        "sep_token": "[SEP]",
        "model_max_length": 256,
        "auto_map": {"AutoTokenizer": "evil.Evil"},
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    loaded = load_tokenizer(tmp_path)
    assert len(loaded(TEXT)["input_ids"]) > 4
    assert (loaded.cls_token, loaded.model_max_length) == ("[CLS]", 256)
    assert "auto_map" not in loaded.init_kwargs
    (tmp_path / "tokenizer_config.json").write_text('{"model_input_names": [1, {}]}')
    assert load_tokenizer(tmp_path)(TEXT).keys() == loaded(TEXT).keys()


DAMAGED = {
    "merges without a place in the vocabulary": (
        {"vocab.json": json.dumps(LETTERS).encode(), "merges.txt": b"foo bar\nxyzzy"},
        r"vocab\.json with merges\.txt: not a readable tokenizer \(.*invalid at line 2\)",
    ),
    "merges of bytes": (
        {"vocab.json": json.dumps(LETTERS).encode(), "merges.txt": b"a b\n\x80\xff\n"},
        r"merges\.txt:2: byte 1 of the line is not UTF-8",
    ),
    "no merges": (
        {"vocab.json": json.dumps(LETTERS).encode(), "merges.txt": b"#version: 0.2\n\n"},
        r"merges\.txt: holds no merges",
    ),
    "a vocabulary of the mask alone": (
        {"vocab.json": b'{"<mask>": 0}', "merges.txt": b"a b"},
        r"not a readable tokenizer",
    ),
    "an id below zero": (
        {"vocab.json": b'{"<mask>": -1, "a": 0, "b": 1, "ab": 2}', "merges.txt": b"a b"},
        r"not a readable tokenizer \(.*Bad vocabulary json",
    ),
    "pieces whose normalisation is torn": (
        {"spiece.model": (SHIPPED / "t5" / "spiece.model").read_bytes()[:-300] + bytes(300)},
        r"spiece\.model: not a readable tokenizer \(",
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_one_line_that_names_it(tmp_path: Path, damage: str):
    files, message = DAMAGED[damage]
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message) as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_word_pieces_that_the_library_refuses_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "vocab.txt").write_text("[CLS]\n[SEP]\n[PAD]\n[UNK]\n")

    def refuse(**_: object) -> None:
        raise Exception("line one\nline two")

    monkeypatch.setattr("jaxrank.text.tokenizer_files.BertTokenizer", refuse)
    with pytest.raises(InputError, match=r"vocab\.txt: not a readable tokenizer \(line one\)$"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no tokenizer; looked for tokenizer.json"),
        ({"tokenizer.json": "{"}, r"tokenizer\.json: not a readable tokenizer \("),
        ({"vocab.txt": "a\nb\n"}, r"lacks \[CLS\]"),
        ({"spiece.model": "\n\x03\n\x01a\x12\x02\x18\x01\x1a\x03\n\x01a"}, "not T5's pieces"),
        ({"vocab.json": '{"a": 0}', "merges.txt": ""}, "neither RoBERTa's or OPT's"),
        (
            {
                "vocab.txt": "[CLS]\n[SEP]\n[PAD]\n[UNK]",
                "tokenizer_config.json": '{"cls_token": 3}',
            },
            "cls_token: got 3",
        ),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(tmp_path: Path, files: dict, message: str):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        load_tokenizer(tmp_path)


def test_a_hub_id_without_a_network_is_one_line(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("line one\nline two")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(InputError, match="hub did not give it") as caught:
        load_tokenizer("somebody/some-model")
    assert "\n" not in str(caught.value)


def test_a_missing_folder_is_not_looked_for_on_the_hub(tmp_path: Path):
    with pytest.raises(InputError, match=r"no such folder$"):
        load_tokenizer(tmp_path / "absent")
