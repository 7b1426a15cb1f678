import json
from pathlib import Path

import huggingface_hub
import pytest

from jaxrank.errors import InputError
from jaxrank.text.tokenizer_files import load_tokenizer

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


def test_byte_level_bpe_loads_from_two_files(tmp_path: Path):
    letters = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "a": 4, "b": 5, "ab": 6, "<mask>": 7}
    (tmp_path / "vocab.json").write_text(json.dumps(letters))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer("ab", "a")["input_ids"] == [0, 6, 2, 2, 4, 2]


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


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no tokenizer; looked for tokenizer.json"),
        ({"tokenizer.json": "{"}, "not a readable tokenizer file"),
        ({"vocab.txt": "a\nb\n"}, r"lacks \[CLS\]"),
        ({"vocab.json": '{"a": 0}', "merges.txt": ""}, "neither RoBERTa's vocabulary nor GPT-2's"),
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
