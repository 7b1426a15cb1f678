import json
import shutil
from pathlib import Path

import huggingface_hub
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder
from transformers import (
    BertForSequenceClassification,
    BertModel,
    MambaModel,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from ckpt_convert.load import LoadedModel, load, with_text
from ckpt_convert.save import save
from jaxrank.errors import InputError
from jaxrank.models.module import build_module
from jaxrank.text.added_tokens import vocabulary_size
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import PairTokenizer, load_tokenizer, pad_pairs
from tests.ckpt_convert.conftest import randomise
from tests.tokenizer_builders import tokenizer_folder


def save_again(loaded: LoadedModel, folder: Path, **options) -> Path:
    return save(
        folder,
        config=loaded.config,
        parameters=loaded.parameters,
        tokenizer=loaded.tokenizer,
        text=loaded.text,
        **options,
    )


def assert_same(a: LoadedModel, b: LoadedModel) -> None:
    assert (a.config, a.text) == (b.config, b.text)
    assert list(a.parameters) == list(b.parameters)
    for path, value in a.parameters.items():
        np.testing.assert_array_equal(value, b.parameters[path], err_msg=path)
    vocabulary = a.tokenizer.get_vocab()
    assert vocabulary == b.tokenizer.get_vocab()


@pytest.mark.parametrize(
    ("layout", "head"),
    [
        ("bert-classifier", None),
        ("bert-bare", None),
        ("bert-classifier", "linear"),
        ("mamba-bare", None),
    ],
)
def test_a_saved_model_loads_identically_and_saves_the_same_bytes(
    checkpoint, tmp_path, layout, head
):
    loaded = load(checkpoint(layout), head=head)
    again = load(save_again(loaded, tmp_path / "once"))
    assert_same(loaded, again)
    assert not again.notes
    save_again(again, tmp_path / "twice")
    for name in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"):
        first, second = (tmp_path / turn / name for turn in ("once", "twice"))
        assert first.read_bytes() == second.read_bytes(), name


@pytest.mark.parametrize(
    ("layout", "same_weights"),
    [
        ("bert-sharded", "bert-classifier"),
        ("bert-old-names", "bert-pretraining"),
        ("mamba-state-spaces", "mamba-language-model"),
    ],
)
def test_another_layout_of_the_same_weights_gives_the_same_parameters(
    checkpoint, neox_tokenizer_folder, bert_tokenizer_folder, layout, same_weights
):
    is_bert = layout.startswith("bert")
    tokenizer = bert_tokenizer_folder if is_bert else neox_tokenizer_folder
    first, second = (load(checkpoint(name), tokenizer=tokenizer) for name in (layout, same_weights))
    assert list(first.parameters) == list(second.parameters)
    for path, value in first.parameters.items():
        np.testing.assert_array_equal(value, second.parameters[path], err_msg=path)


def test_a_published_cross_encoder_survives_the_round_trip_bit_by_bit(checkpoint, tmp_path):
    folder = checkpoint("bert-classifier")
    saved = save_again(load(folder), tmp_path / "saved")
    before, after = (load_file(path / "model.safetensors") for path in (folder, saved))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name


@pytest.mark.parametrize(
    ("layout", "head", "model_class"),
    [
        ("bert-classifier", None, BertForSequenceClassification),
        ("bert-bare", "linear", BertModel),
        ("mamba-language-model", None, MambaModel),
    ],
)
def test_transformers_loads_every_backbone_weight_of_a_saved_folder(
    checkpoint, tmp_path, layout, head, model_class
):
    saved = save_again(load(checkpoint(layout), head=head), tmp_path / "saved")
    model, report = model_class.from_pretrained(saved, output_loading_info=True)
    assert not {name for name in report["missing_keys"] if not name.startswith("pooler.")}
    expected = {"score.weight", "score.bias"} if model.config.jaxrank["head"] == "linear" else set()
    assert set(report["unexpected_keys"]) == expected


def test_a_published_cross_encoder_keeps_its_head_and_template(checkpoint):
    loaded = load(checkpoint("bert-classifier"))
    assert loaded.config.head == "classification"
    assert loaded.text == TextConfig(template="pair", max_length=64)
    assert not loaded.notes


def test_a_missing_head_starts_from_the_seed_and_the_pooler_stays(checkpoint):
    folder = checkpoint("bert-bare")
    first, same, other = (load(folder, seed=seed) for seed in (1, 1, 2))
    assert first.notes[0] == "score head started at random (seed 1): head.score"
    np.testing.assert_array_equal(
        first.parameters["head.score.kernel"], same.parameters["head.score.kernel"]
    )
    assert np.any(first.parameters["head.score.kernel"] != other.parameters["head.score.kernel"])
    pooler = load_file(folder / "model.safetensors")["pooler.dense.weight"]
    np.testing.assert_array_equal(first.parameters["head.dense.kernel"], pooler.numpy().T)


def test_weights_that_are_not_needed_are_named(checkpoint):
    notes = " / ".join(load(checkpoint("bert-pretraining")).notes)
    assert "pretraining head, not used for scores: cls.predictions.bias" in notes
    notes = " / ".join(load(checkpoint("bert-classifier"), head="linear").notes)
    assert "head of another kind than the one asked for: " in notes
    assert "classifier.weight" in notes


def test_a_classifier_that_lacks_its_head_is_refused(checkpoint):
    folder = checkpoint("bert-classifier")
    tensors = load_file(folder / "model.safetensors")
    kept = {name: t for name, t in tensors.items() if not name.startswith("classifier")}
    save_file(kept, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"2 missing: classifier\.weight, classifier\.bias"):
        load(folder)


def test_half_precision_weights_load_as_float32(checkpoint):
    folder = checkpoint("bert-classifier")
    expected = load(folder).parameters
    tensors = load_file(folder / "model.safetensors")
    save_file({n: t.bfloat16() for n, t in tensors.items()}, folder / "model.safetensors")
    for path, value in load(folder).parameters.items():
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, expected[path], rtol=2**-8)


def test_a_config_that_does_not_fit_the_weights_names_the_shapes_once_for_all_layers(checkpoint):
    folder = checkpoint("bert-classifier")
    config = json.loads((folder / "config.json").read_text())
    config |= {"intermediate_size": 47, "num_hidden_layers": 2}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError) as raised:
        load(folder)
    message = str(raised.value)
    layers = "6 wrong shape: bert.encoder.layer.{0,1}"
    assert f"{layers}.intermediate.dense.weight is (48, 32), needs (47, 32); bert" in message
    assert "16 not used: bert.encoder.layer.2.attention.output.LayerNorm.bias, " in message
    assert " and 10 more; the weights must fit" in message


def test_absurd_sizes_are_refused_before_anything_is_allocated(checkpoint):
    folder = checkpoint("bert-classifier")
    config = json.loads((folder / "config.json").read_text())
    config |= {"vocab_size": 2**24, "intermediate_size": 2**24, "num_hidden_layers": 1000}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="wrong shape"):
        load(folder)


def test_nan_in_weights_is_refused_by_name(checkpoint):
    folder = checkpoint("mamba-bare")
    tensors = load_file(folder / "model.safetensors")
    tensors["layers.1.mixer.D"][3] = float("nan")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"tensor 'layers\.1\.mixer\.D': 1 of 48 values are NaN"):
        load(folder)


def test_a_tokenizer_larger_than_the_embedding_is_refused(checkpoint, neox_tokenizer_folder):
    with pytest.raises(
        InputError, match="the tokenizer has 50277 ids, the model's embedding 30522"
    ):
        load(
            checkpoint("bert-classifier"),
            tokenizer=neox_tokenizer_folder,
            text=TextConfig("paper-decoder", 64, 20),
        )


def xlm_roberta(folder: Path, *, max_length: int, tokenizer: Path, **settings: object) -> Path:
    """A published classifier of XLM-RoBERTa's kind with the tokenizer.json of that folder."""
    config = XLMRobertaConfig(
        vocab_size=vocabulary_size(load_tokenizer(tokenizer)),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=max_length + 2,
        type_vocab_size=1,
        pad_token_id=1,
        num_labels=1,
    )
    torch.manual_seed(0)
    model = randomise(XLMRobertaForSequenceClassification(config))
    with torch.no_grad():
        for parameter in model.classifier.parameters():
            parameter *= 10  # scores that differ visibly
    model.save_pretrained(folder)
    shutil.copy(tokenizer / "tokenizer.json", folder)
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize(("stated", "length"), [(1000, 1000), (9000, 2000)])
def test_a_published_classifier_reads_as_long_pairs_as_in_sentence_transformers(
    tmp_path, stated, length
):
    folder = xlm_roberta(
        tmp_path / "model",
        max_length=2000,
        tokenizer=tokenizer_folder("xlm-roberta"),
        model_max_length=stated,
    )
    loaded = load(folder)
    assert loaded.text == TextConfig("pair", max_length=length)
    assert not loaded.notes
    if stated < 2000:  # it counts the two positions that XLM-RoBERTa never uses
        assert CrossEncoder(str(folder), device="cpu").max_seq_length == length
    assert load(folder, head="linear").text.max_length == 512


def test_a_published_classifier_whose_length_is_a_guess_says_so(tmp_path):
    tokenizer = tokenizer_folder("xlm-roberta")
    folder = xlm_roberta(tmp_path / "long", max_length=2000, tokenizer=tokenizer)
    loaded = load(folder)
    assert loaded.text.max_length == 512
    (note,) = loaded.notes
    assert note.startswith("pairs are cut at 512 tokens, of the model's 2,000, since the tokenizer")
    assert "--max-length" in note
    chosen = load(folder, max_length=1500)
    assert (chosen.text.max_length, chosen.notes) == (1500, ())
    assert not load(save_again(loaded, tmp_path / "again")).notes
    for most in (512, 300):
        short = load(xlm_roberta(tmp_path / str(most), max_length=most, tokenizer=tokenizer))
        assert (short.text.max_length, short.notes) == (most, ())


def test_a_model_of_one_token_type_is_given_no_other(tmp_path, bert_tokenizer_folder):
    """BERT's tokenizer.json types the second text 1; the table here has the one row 0."""
    folder = xlm_roberta(tmp_path / "model", max_length=64, tokenizer=bert_tokenizer_folder)
    loaded = load(folder)
    pairs = [("what causes asthma ?", "it is not known"), ("glaucoma", "pressure in the eye")]
    encoded = PairTokenizer(loaded.tokenizer, loaded.text).encode(pairs)
    arrays = pad_pairs(encoded, length=24, pad_token_id=1)
    assert not arrays["token_type_ids"].any()
    module = build_module(loaded.config, loaded.parameters)
    ours = np.asarray(module(**{name: jnp.asarray(array) for name, array in arrays.items()}))
    model = XLMRobertaForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        theirs = model(
            torch.tensor(arrays["input_ids"]).long(),
            attention_mask=torch.tensor(arrays["mask"]).long(),
        ).logits[:, 0]
    assert np.ptp(ours) > 1e-3
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5, atol=1e-6)
    saved = load(save_again(loaded, tmp_path / "saved"))
    assert "token_type_ids" not in saved.tokenizer.model_input_names
    other = with_text(saved, TextConfig("paper-encoder", max_length=64, query_length=20))
    assert other.tokenizer.model_input_names == ["input_ids", "attention_mask"]


def test_bert_keeps_its_token_types(checkpoint):
    assert "token_type_ids" in load(checkpoint("bert-classifier")).tokenizer.model_input_names


def test_a_folder_without_tokenizer_asks_for_one(checkpoint, neox_tokenizer_folder):
    folder = checkpoint("bert-classifier")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"holds no tokenizer; name one with --tokenizer$"):
        load(folder)
    folder = checkpoint("mamba-state-spaces")
    assert load(folder, tokenizer=neox_tokenizer_folder).text.template == "paper-decoder"


def test_state_spaces_folders_take_their_tokenizer_from_the_hub(
    checkpoint, neox_tokenizer_folder, monkeypatch
):
    def download(source: str, *, allow_patterns: list[str]) -> str:
        assert source == "EleutherAI/gpt-neox-20b"
        assert not any("safetensors" in pattern for pattern in allow_patterns)
        return str(neox_tokenizer_folder)

    folder = checkpoint("mamba-state-spaces")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    loaded = load(folder)
    assert loaded.tokenizer.eos_token == "<|endoftext|>"
    assert "the folder holds no tokenizer: took EleutherAI/gpt-neox-20b's" in loaded.notes
    given = load(folder, tokenizer=neox_tokenizer_folder)
    assert given.tokenizer.get_vocab() == loaded.tokenizer.get_vocab()
    assert not any("tokenizer" in note for note in given.notes)


def test_state_spaces_folders_ask_for_a_tokenizer_where_the_hub_is_out_of_reach(
    checkpoint, monkeypatch
):
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("line one\nline two")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    message = "holds no tokenizer; name one with --tokenizer .*hub did not give it .ConnectionError"
    with pytest.raises(InputError, match=message) as raised:
        load(checkpoint("mamba-state-spaces"))
    assert "\n" not in str(raised.value)


def test_a_length_beyond_the_position_table_is_refused(checkpoint):
    with pytest.raises(InputError, match="max_length: got 65; this model has 64 positions"):
        load(checkpoint("bert-classifier"), max_length=65)
    assert load(checkpoint("mamba-bare"), max_length=2000).text.max_length == 2000


def test_a_source_that_is_not_there_is_one_line(tmp_path):
    for source in (tmp_path / "none", "./none", "a/b/c", "-x"):
        with pytest.raises(InputError, match="no such folder"):
            load(source)
    with pytest.raises(InputError, match="no such folder, and the Hugging Face hub did not"):
        load("some-owner/some-model")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="this is a file"):
        load(tmp_path / "file")


def test_saving_replaces_a_model_but_nothing_else(checkpoint, tmp_path):
    loaded = load(checkpoint("mamba-bare"))
    save_again(loaded, tmp_path / "model")
    save_again(loaded, tmp_path / "model")
    with pytest.raises(InputError, match="holds a model already"):
        save_again(loaded, tmp_path / "model", replace=False)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(InputError, match="holds something else than a jaxrank model"):
        save_again(loaded, tmp_path / "thesis")
    with pytest.raises(InputError, match="holds something else than a jaxrank model"):
        save_again(loaded, checkpoint("bert-classifier"))
    assert (tmp_path / "thesis" / "chapter.tex").exists()


def test_a_failed_save_leaves_the_earlier_model_intact(checkpoint, tmp_path, monkeypatch):
    loaded = load(checkpoint("bert-classifier"))
    folder = save_again(loaded, tmp_path / "model")

    def fail(*_arguments: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ckpt_convert.save.write_tokenizer", fail)
    with pytest.raises(OSError, match="No space left"):
        save_again(loaded, folder)
    assert_same(loaded, load(folder))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bert-classifier", "model"]


def test_parameters_that_are_not_finite_or_do_not_fit_are_not_saved(checkpoint, tmp_path):
    loaded = load(checkpoint("bert-classifier"))
    arguments = {"config": loaded.config, "tokenizer": loaded.tokenizer, "text": loaded.text}
    bad = loaded.parameters | {"head.score.bias": np.array([np.nan], np.float32)}
    with pytest.raises(InputError, match=r"parameter head\.score\.bias: NaN"):
        save(tmp_path / "model", parameters=bad, **arguments)
    bad = loaded.parameters | {"head.score.bias": np.zeros(2, np.float32)}
    with pytest.raises(InputError, match=r"head\.score\.bias \(\(2,\) for \(1,\)\)"):
        save(tmp_path / "model", parameters=bad, **arguments)
    assert not (tmp_path / "model").exists()


def test_the_readme_names_template_head_and_provenance(checkpoint, tmp_path):
    loaded = load(checkpoint("mamba-bare"))
    folder = save_again(loaded, tmp_path / "model", provenance=["trained on nothing"])
    readme = (folder / "README.md").read_text()
    assert readme.startswith("---\nlibrary_name: transformers\npipeline_tag: text-ranking\n")
    for part in (
        'jaxrank.Reranker.from_pretrained("model")',
        'transformers.MambaModel.from_pretrained("model")',
        "score.weight",
        "Template `paper-decoder`, at most 512 tokens; head `linear`",
        "- trained on nothing",
    ):
        assert part in readme
