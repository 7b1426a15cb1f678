"""Folders of GPT-NeoX, OPT and Llama as they are published, and what PyTorch reads of ours."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from ckpt_convert.architectures import ARCHITECTURES
from ckpt_convert.load import load
from ckpt_convert.network import load_network
from ckpt_convert.parity import certify
from ckpt_convert.save import save
from ckpt_convert.source_config import read_source_config, write_source_config
from jaxrank.errors import InputError
from jaxrank.models.families import get_family
from jaxrank.models.module import RerankerConfig, init_module, parameters
from jaxrank.reranker import Reranker
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import PairTokenizer, load_tokenizer
from tests.tokenizer_builders import tokenizer_folder

# Beside the sizes: what the three published config.json files hold.
PYTHIA_160M = {
    "model_type": "gpt_neox",
    "architectures": ["GPTNeoXForCausalLM"],
    "bos_token_id": 0,
    "eos_token_id": 0,
    "hidden_act": "gelu",
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 2048,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "rotary_emb_base": 10000,
    "rotary_pct": 0.25,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "transformers_version": "4.24.0",
    "use_cache": True,
    "use_parallel_residual": True,
    "vocab_size": 50304,
}
OPT_350M = {
    "model_type": "opt",
    "_name_or_path": "opt-350m",
    "_remove_final_layer_norm": False,
    "activation_dropout": 0.0,
    "activation_function": "relu",
    "architectures": ["OPTForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 2,
    "do_layer_norm_before": False,
    "dropout": 0.1,
    "eos_token_id": 2,
    "ffn_dim": 4096,
    "hidden_size": 1024,
    "init_std": 0.02,
    "layerdrop": 0.0,
    "max_position_embeddings": 2048,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "pad_token_id": 1,
    "prefix": "</s>",
    "torch_dtype": "float16",
    "transformers_version": "4.20.0.dev0",
    "use_cache": True,
    "vocab_size": 50272,
    "word_embed_proj_dim": 512,
}
STRETCH = {
    "factor": 32.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
LLAMA_3_2_1B = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": STRETCH,
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.45.0.dev0",
    "use_cache": True,
    "vocab_size": 128256,
}
PUBLISHED = {
    "pythia-160m": (PYTHIA_160M, "GPTNeoXConfig", {}),
    "opt-350m": (OPT_350M, "OPTConfig", {}),
    "llama-3.2-1b": (LLAMA_3_2_1B, "LlamaConfig", {"head_size": 64}),
}
SMALL = {
    "gpt_neox": {"intermediate_size": 32, "pad_token_id": 1},
    "opt": {"ffn_dim": 32},
    "llama": {"intermediate_size": 32, "pad_token_id": 1, "num_key_value_heads": 1},
}
CLASSES = {"gpt_neox": "GPTNeoX", "opt": "OPT", "llama": "Llama"}


def read(folder: Path, attributes: dict) -> Any:
    (folder / "config.json").write_text(json.dumps(attributes))
    return read_source_config(folder, head="linear").config.backbone


def write_small(folder: Path, family: str, kind: str, **settings: Any) -> Path:
    """A random model of transformers' class of that kind, with one label if none is given."""
    sizes = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    model_class = getattr(transformers, CLASSES[family] + kind)
    settings = {"num_labels": 1, **sizes, **SMALL[family], **settings}
    torch.manual_seed(0)
    model_class(model_class.config_class(**settings)).save_pretrained(folder)
    return folder


def change_tensors(folder: Path, change: Any) -> None:
    tensors = change(load_file(folder / "model.safetensors"))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("preset", list(PUBLISHED))
def test_a_published_config_is_the_preset(preset: str, tmp_path: Path):
    attributes, _, resolved = PUBLISHED[preset]
    family = get_family(attributes["model_type"])
    expected = vars(family.presets[preset]) | resolved
    assert vars(read(tmp_path, attributes)) == expected


@pytest.mark.parametrize("preset", list(PUBLISHED))
def test_transformers_5_writes_a_config_that_says_the_same(preset: str, tmp_path: Path):
    attributes, config_class, _ = PUBLISHED[preset]
    # Transformers changes the objects that it is given.
    config = getattr(transformers, config_class)(**copy.deepcopy(attributes))
    config.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert ("rope_parameters" in written) == (preset != "opt-350m")
    assert read(tmp_path, written) == read(tmp_path, attributes)


@pytest.mark.parametrize("preset", [*PUBLISHED, "llama without a stretch"])
def test_our_config_is_read_alike_by_us_and_by_transformers(preset: str, tmp_path: Path):
    attributes, name, _ = PUBLISHED.get(preset, PUBLISHED["llama-3.2-1b"])
    if preset not in PUBLISHED:
        attributes = attributes | {"rope_scaling": None}
    backbone = read(tmp_path, attributes)
    config = RerankerConfig(attributes["model_type"], backbone)
    (tmp_path / "config.json").write_text(write_source_config(config, TextConfig()))
    assert read_source_config(tmp_path).config.backbone == backbone
    config_class = getattr(transformers, name)
    theirs = config_class.from_pretrained(tmp_path)
    published = config_class(**copy.deepcopy(attributes))
    format = ARCHITECTURES[config.family].config
    for attribute in (*format.sizes, *format.options, "rope_parameters"):
        assert getattr(theirs, attribute, 0) == getattr(published, attribute, 0), attribute


@pytest.mark.parametrize(
    ("preset", "change", "said"),
    [
        ("pythia-160m", {"hidden_act": "gelu_fast"}, "hidden_act is 'gelu_fast'; only 'gelu'"),
        ("pythia-160m", {"attention_bias": False}, "attention_bias is False; only True"),
        ("pythia-160m", {"rotary_pct": 0.3}, "rotary_fraction is 0.3; of the 64 channels"),
        ("pythia-160m", {"rotary_pct": 0.0}, "rotary_fraction is 0.0; of the 64 channels"),
        (
            "pythia-160m",
            {"rope_scaling": {"type": "linear", "factor": 2.0}},
            "rope_scaling is .'type': 'linear', 'factor': 2.0.; only None",
        ),
        (
            "pythia-160m",
            {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}},
            "rope_parameters.rope_type is 'yarn'; only 'default'",
        ),
        ("opt-350m", {"activation_function": "gelu"}, "activation_function is 'gelu'; only 'relu'"),
        ("opt-350m", {"_remove_final_layer_norm": True}, "_remove_final_layer_norm is True"),
        ("opt-350m", {"layer_norm_elementwise_affine": False}, "elementwise_affine is False"),
        ("opt-350m", {"layerdrop": 0.1}, "layerdrop is 0.1; only 0.0"),
        ("opt-350m", {"tie_word_embeddings": False}, "tie_word_embeddings is False; only True"),
        ("llama-3.2-1b", {"attention_bias": True}, "attention_bias is True; only False"),
        ("llama-3.2-1b", {"mlp_bias": True}, "mlp_bias is True; only False"),
        ("llama-3.2-1b", {"hidden_act": "gelu"}, "hidden_act is 'gelu'; only 'silu'"),
        ("llama-3.2-1b", {"num_key_value_heads": 5}, "num_key_heads is 5; it must divide"),
        ("llama-3.2-1b", {"head_dim": 63}, "heads are 63 wide; it must be even"),
        (
            "llama-3.2-1b",
            {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
            "unknown to this family: rope_scaling.type",
        ),
        (
            "llama-3.2-1b",
            {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
            "rope_scaling.rope_type is 'linear'; needed is default or llama3",
        ),
        (
            "llama-3.2-1b",
            {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
            "rotary_scaling is 'llama3', which needs rotary_factor, rotary_low",
        ),
        (
            "llama-3.2-1b",
            {"rope_parameters": STRETCH | {"factor": 8.0}},
            "rope_parameters has 8.0 where another section has 32.0",
        ),
        (
            "llama-3.2-1b",
            {"rope_parameters": STRETCH | {"partial_rotary_factor": 0.5}},
            "unknown to this family: rope_parameters.partial_rotary_factor",
        ),
    ],
)
def test_what_would_change_the_numbers_is_refused(
    preset: str, change: dict, said: str, tmp_path: Path
):
    with pytest.raises(InputError, match=said):
        read(tmp_path, PUBLISHED[preset][0] | change)


def test_buffers_of_older_releases_are_passed_over(tmp_path: Path):
    def add(tensors: dict) -> dict:
        names = ("attention.bias", "attention.masked_bias", "attention.rotary_emb.inv_freq")
        buffers = {
            f"gpt_neox.layers.{layer}.{name}": torch.ones(1) for name in names for layer in (0, 1)
        }
        head = {"embed_out.weight": torch.ones(40, 16)}
        return {n: t for n, t in tensors.items() if n != "lm_head.weight"} | buffers | head

    folder = write_small(tmp_path, "gpt_neox", "ForCausalLM")
    plain = load_network(folder).parameters
    change_tensors(folder, add)
    network = load_network(folder)
    notes = " ".join(network.notes)
    assert "constant: gpt_neox.layers.{0,1}.attention.bias" in notes
    assert "language-model head, not used for scores: embed_out.weight" in notes
    for path, array in network.parameters.items():
        np.testing.assert_array_equal(array, plain[path])


@pytest.mark.parametrize("prefix", ["", "decoder."])
def test_opt_is_read_under_each_of_its_prefixes(prefix: str, tmp_path: Path):
    folder = write_small(tmp_path, "opt", "ForCausalLM")
    plain = load_network(folder).parameters

    def rename(tensors: dict) -> dict:
        return {n.replace("model.decoder.", prefix): t for n, t in tensors.items()}

    change_tensors(folder, rename)
    for path, array in load_network(folder).parameters.items():
        np.testing.assert_array_equal(array, plain[path])


def test_opt_is_read_where_its_table_is_called_lm_head(tmp_path: Path):
    folder = write_small(tmp_path, "opt", "ForCausalLM")
    plain = load_network(folder).parameters
    table = "model.decoder.embed_tokens.weight"

    def rename(tensors: dict) -> dict:
        return {("lm_head.weight" if n == table else n): t for n, t in tensors.items()}

    change_tensors(folder, rename)
    for path, array in load_network(folder).parameters.items():
        np.testing.assert_array_equal(array, plain[path])


@pytest.mark.parametrize("family", list(SMALL))
@pytest.mark.parametrize("labels", [1, 2])
def test_a_new_linear_head_starts_on_a_classifier(family: str, labels: int, tmp_path: Path):
    folder = write_small(tmp_path, family, "ForSequenceClassification", num_labels=labels)
    network = load_network(folder, head="linear")
    assert set(network.fresh) == {"head.score.kernel", "head.score.bias"}
    assert any("head of another kind" in note for note in network.notes)
    if labels == 1:
        assert load_network(folder).fresh == ()
    else:
        with pytest.raises(InputError, match="the classifier has 2 labels"):
            load_network(folder)


@pytest.mark.parametrize(
    ("kind", "head", "template"),
    [
        ("ForSequenceClassification", None, "pair"),
        ("ForCausalLM", "classification", "pair"),
        ("ForCausalLM", "linear", "paper-decoder"),
    ],
)
def test_a_classifier_reads_its_tokenizers_own_pairs(
    kind: str, head: str | None, template: str, tmp_path: Path, neox_tokenizer_folder: Path
):
    folder = write_small(tmp_path, "gpt_neox", kind, vocab_size=50277)
    loaded = load(folder, tokenizer=neox_tokenizer_folder, head=head)
    assert loaded.text.template == template


def test_a_template_for_another_kind_of_model_is_remarked_on(
    tmp_path: Path, bert_tokenizer_folder: Path
):
    folder = write_small(tmp_path, "gpt_neox", "ForCausalLM", vocab_size=50277)
    text = TextConfig("paper-encoder", max_length=64, query_length=24)
    loaded = load(folder, tokenizer=bert_tokenizer_folder, text=text)
    assert any("is worded for encoder models; gpt_neox is decoder" in n for n in loaded.notes)
    own = load(folder, tokenizer=bert_tokenizer_folder, text=TextConfig("pair"), max_length=64)
    assert not any("is worded for" in note for note in own.notes)


def make_folder(folder: Path, kind: str, *, head: Any, template: str) -> Path:
    """A folder of ours with a tiny random model."""
    family = {"gpt-neox-20b": "gpt_neox"}.get(kind, kind)
    tokenizer, text = load_tokenizer(tokenizer_folder(kind)), TextConfig(template, max_length=64)
    backbone = get_family(family).presets[f"{family.replace('_', '-')}-tiny"]
    rows = max(PairTokenizer(tokenizer, text).vocabulary_size, backbone.vocab_size)
    config = RerankerConfig(family, type(backbone)(**vars(backbone) | {"vocab_size": rows}), head)
    arrays = {n: np.asarray(a) for n, a in parameters(init_module(config, seed=0)).items()}
    arrays["head.score.kernel"] = arrays["head.score.kernel"] * 50
    return save(folder, config=config, parameters=arrays, tokenizer=tokenizer, text=text)


def test_a_new_classification_head_starts_on_a_linear_one(tmp_path: Path):
    folder = make_folder(tmp_path / "model", "llama", head="linear", template="paper-decoder")
    assert load(folder).fresh == ()
    assert load(folder, head="classification").fresh == ("head.score.kernel",)


@pytest.mark.parametrize("kind", ["gpt-neox-20b", "opt", "llama"])
def test_transformers_scores_the_end_of_a_text_in_a_padded_batch(kind: str, tmp_path: Path):
    """Its classifiers score the last token that is no pad: a pad that ends texts would hide it."""
    folder = make_folder(tmp_path / "model", kind, head="classification", template="paper-decoder")
    pairs = [("what is it?", "glaucoma"), ("and this?", "a longer text on the pressure of an eye")]
    reranker = Reranker.from_pretrained(folder)
    loaded = load(folder)
    encoded = PairTokenizer(loaded.tokenizer, loaded.text).encode(pairs)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert all(pair.input_ids[-1] == tokenizer.eos_token_id for pair in encoded)
    batch = tokenizer.pad(
        {"input_ids": [pair.input_ids.tolist() for pair in encoded]}, return_tensors="pt"
    )
    assert not batch["attention_mask"].all()
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        theirs = model(**batch).logits[:, 0].numpy()
    ours = reranker.predict(pairs)
    np.testing.assert_allclose(theirs, ours, atol=1e-4)
    assert np.ptp(ours) > 1e-2


@pytest.mark.parametrize("kind", ["gpt-neox-20b", "opt", "llama"])
def test_a_wrong_head_of_a_decoder_fails_the_certificate(kind: str, tmp_path: Path):
    folder = make_folder(tmp_path / "model", kind, head="classification", template="paper-decoder")
    pairs = [("what is it?", "glaucoma"), ("and this?", "a longer text on the pressure of an eye")]
    loaded = load(folder)
    assert certify(folder, loaded, pairs).has_passed
    loaded.parameters["head.score.kernel"] *= 1.01
    certificate = certify(folder, loaded, pairs)
    assert not certificate.has_passed
    assert certificate.scores.max_relative > 5e-3


@pytest.mark.parametrize(("stored", "asked"), [("linear", "classification"), ("linear", "linear")])
def test_a_decoders_own_linear_head_is_compared_and_one_of_the_other_kind_is_not(
    stored: str, asked: str, tmp_path: Path
):
    folder = make_folder(tmp_path / "model", "opt", head=stored, template="paper-decoder")
    pairs = [("what is it?", "glaucoma"), ("and this?", "a longer text on the pressure of an eye")]
    loaded = load(folder, head=asked)
    assert certify(folder, loaded, pairs).has_passed
    loaded.parameters["head.score.kernel"] *= 1.01
    assert certify(folder, loaded, pairs).has_passed == (asked != stored)


@pytest.mark.parametrize("pad", [None, "the end of a text"])
def test_the_certificate_compares_ends_of_texts_whatever_the_pad(pad: str | None, tmp_path: Path):
    folder = make_folder(
        tmp_path / "model", "llama", head="classification", template="paper-decoder"
    )
    attributes = json.loads((folder / "config.json").read_text())
    attributes["pad_token_id"] = attributes["eos_token_id"] if pad else None
    (folder / "config.json").write_text(json.dumps(attributes))
    pairs = [("what is it?", "glaucoma"), ("and this?", "a longer text on the pressure of an eye")]
    assert certify(folder, load(folder), pairs).has_passed
