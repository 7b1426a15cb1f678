import hashlib
import json

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from sentence_transformers import CrossEncoder
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from ckpt_convert import parity
from ckpt_convert.load import load
from ckpt_convert.parity import certify, check_size, read_pairs
from ckpt_convert.save import save
from jaxrank.errors import InputError
from jaxrank.models.module import build_module
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import PairTokenizer, pad_pairs


@pytest.mark.parametrize(
    ("layout", "head"),
    [
        ("bert-bare", "linear"),
        ("bert-classifier", None),
        ("mamba-language-model", None),
        ("mamba-state-spaces", None),
    ],
)
def test_every_layout_computes_what_transformers_computes(
    checkpoint, medquad_mini, neox_tokenizer_folder, layout, head
):
    folder = checkpoint(layout)
    tokenizer = neox_tokenizer_folder if layout == "mamba-state-spaces" else None
    text = TextConfig("pair", 32) if layout.startswith("bert") else TextConfig("paper", 32, 16)
    loaded = load(folder, head=head, tokenizer=tokenizer, text=text)
    pairs = [("asthma", "cough"), *read_pairs(medquad_mini, limit=7)]
    certificate = certify(folder, loaded, pairs)
    assert certificate.worst < 1e-5, certificate.table()
    names = [row.where for row in certificate.layers]
    layers = ["layer 1", "layer 2", "layer 3"]
    is_bert = layout.startswith("bert")
    assert names == (["embeddings", *layers] if is_bert else [*layers, "final norm"])
    assert certificate.as_dict()["has_passed"]


SMALL = {"vocab_size": 50280, "hidden_size": 32, "intermediate_size": 48}


@pytest.mark.parametrize(
    ("source", "config", "head", "names"),
    [
        # No pad of its own, by which transformers' classifier would find the end of a text.
        (
            transformers.GPTNeoXModel,
            transformers.GPTNeoXConfig(**SMALL, num_hidden_layers=2, num_attention_heads=4),
            "classification",
            ["embeddings", "layer 1", "final norm"],
        ),
        (
            transformers.T5Model,
            transformers.T5Config(
                vocab_size=50280, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4
            ),
            "linear",
            [
                f"{stack} {name}"
                for stack in ("encoder", "decoder")
                for name in ("embeddings", "layer 1", "final norm")
            ],
        ),
    ],
    ids=["decoder", "encoder-decoder"],
)
def test_every_shape_of_model_can_be_checked(
    tmp_path, medquad_mini, neox_tokenizer_folder, source, config, head, names
):
    torch.manual_seed(0)
    source(config).save_pretrained(tmp_path)
    loaded = load(tmp_path, head=head, tokenizer=neox_tokenizer_folder, max_length=64)
    certificate = certify(tmp_path, loaded, read_pairs(medquad_mini, limit=4))
    assert [row.where for row in certificate.layers] == names
    assert certificate.worst < 1e-5, certificate.table()


def test_a_wrong_weight_fails_the_certificate(checkpoint, medquad_mini):
    folder = checkpoint("bert-classifier")
    loaded = load(folder, max_length=32)
    loaded.parameters["backbone.layers.stacked.attention.query.bias"][1] += 0.1
    certificate = certify(folder, loaded, read_pairs(medquad_mini, limit=8))
    assert not certificate.has_passed
    assert certificate.layers[1].max_relative < 1e-5 < 1e-4 < certificate.layers[2].max_relative


def test_a_nan_on_our_side_fails_the_certificate_and_is_null_in_json(checkpoint, medquad_mini):
    folder = checkpoint("bert-classifier")
    loaded = load(folder, max_length=32)
    loaded.parameters["backbone.layers.stacked.attention.query.bias"][2] = np.nan
    certificate = certify(folder, loaded, read_pairs(medquad_mini, limit=9))
    assert not certificate.has_passed
    written = json.loads(json.dumps(certificate.as_dict(), allow_nan=False))
    assert [row["max_relative"] is None for row in written["layers"]] == [False] * 3 + [True]
    assert written["worst_relative"] is None
    assert written["kendall_tau"] is None


def test_the_certificate_says_what_was_compared(checkpoint, medquad_mini):
    folder = checkpoint("bert-sharded")
    loaded = load(folder, max_length=32)
    certificate = certify(folder, loaded, read_pairs(medquad_mini, limit=20), texts="medquad")
    written = certificate.as_dict()
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 1
    assert written["weights"] == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in shards
    }
    assert (written["dtype"], written["stored_dtypes"]) == ("float32", ["F32"])
    assert (written["texts"], written["pairs"]) == ("medquad", 20)
    assert written["versions"].keys() >= {"jaxrank", "jax", "torch", "transformers"}
    assert written["kendall_tau"] == pytest.approx(1)
    assert "Kendall's tau of the two rankings: 1.000000" in certificate.table()


def test_long_batches_are_small_and_change_nothing(checkpoint, medquad_mini, monkeypatch):
    folder = checkpoint("bert-classifier")
    loaded = load(folder, max_length=64)
    pairs = [("asthma", "cough"), *read_pairs(medquad_mini, limit=4)]
    one = certify(folder, loaded, pairs)
    monkeypatch.setattr(parity, "_MOST_NUMBERS", 2 * 64 * 32 * 4)  # two pairs at a time
    two = certify(folder, loaded, pairs)
    assert two.tokens == one.tokens
    assert two.worst < 1e-5


def test_a_large_model_is_compared_only_when_told(checkpoint, monkeypatch):
    folder = checkpoint("bert-classifier")
    count = sum(value.size for value in load(folder).parameters.values())
    check_size(folder)
    monkeypatch.setattr(parity, "MOST_PARAMETERS", count)
    check_size(folder)
    monkeypatch.setattr(parity, "MOST_PARAMETERS", count - 1)
    with pytest.raises(InputError, match=rf"{count:,} parameters; .* GB of memory, pass --full"):
        check_size(folder)


def test_real_minilm_matches_pytorch_on_100_real_texts(minilm, medquad_mini):
    loaded = load(minilm, max_length=64)
    certificate = certify(minilm, loaded, read_pairs(medquad_mini, limit=100))
    assert certificate.pairs == 100
    assert certificate.worst < 1e-5, certificate.table()
    json.dumps(certificate.as_dict())


def test_pytorch_reads_a_saved_cross_encoder_with_the_same_scores(minilm, medquad_mini, tmp_path):
    max_length = 96
    loaded = load(minilm, max_length=max_length)
    # The fresh head gives scores of 0.01; make differences visible.
    loaded.parameters["head.score.kernel"] *= 100
    folder = save(
        tmp_path / "model",
        config=loaded.config,
        parameters=loaded.parameters,
        tokenizer=loaded.tokenizer,
        text=loaded.text,
    )
    pairs = [
        *read_pairs(medquad_mini, limit=5),
        ("glaucoma " * 300, "eye pressure " * 300),
        ("x", ""),
    ]
    again = load(folder)
    tokenizer = PairTokenizer(again.tokenizer, again.text)
    batch = pad_pairs(
        tokenizer.encode(pairs), length=max_length, pad_token_id=tokenizer.pad_token_id
    )
    assert tokenizer.counts.truncated_documents >= 1
    module = build_module(again.config, again.parameters)
    ours = np.asarray(module(**{name: jnp.asarray(array) for name, array in batch.items()}))
    assert np.ptp(ours) > 0.1
    theirs = CrossEncoder(str(folder), device="cpu").predict(pairs, show_progress_bar=False)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    inputs = AutoTokenizer.from_pretrained(folder)(
        [query for query, _ in pairs],
        [document for _, document in pairs],
        truncation=True,
        padding=True,
        return_tensors="pt",
    )
    logits = model(**inputs).logits[:, 0].detach().numpy()
    np.testing.assert_allclose(ours, logits, atol=1e-4)


def test_pairs_are_read_from_lines_and_collections(tmp_path, medquad_mini):
    path = tmp_path / "pairs.tsv"
    path.write_text("a query\ta document\nanother\tone\twith tab\n")
    assert read_pairs(path, limit=5) == [("a query", "a document"), ("another", "one\twith tab")]
    assert len(read_pairs(path, limit=1)) == 1
    pairs = read_pairs(medquad_mini, limit=50)
    assert len({document for _, document in pairs}) == 50
    path.write_text("no separator\n")
    with pytest.raises(InputError, match=r"pairs\.tsv:1: no TAB"):
        read_pairs(path, limit=5)
    path.write_text("")
    with pytest.raises(InputError, match=r"pairs\.tsv: empty"):
        read_pairs(path, limit=5)
