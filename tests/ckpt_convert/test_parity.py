import json

import jax.numpy as jnp
import numpy as np
import pytest
from sentence_transformers import CrossEncoder
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from ckpt_convert.load import load
from ckpt_convert.parity import certify, read_pairs
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


def test_a_wrong_weight_fails_the_certificate(checkpoint, medquad_mini):
    folder = checkpoint("bert-classifier")
    loaded = load(folder, max_length=32)
    loaded.parameters["backbone.layers.stacked.attention.query.bias"][1] += 0.1
    certificate = certify(folder, loaded, read_pairs(medquad_mini, limit=8))
    assert not certificate.has_passed
    assert certificate.layers[1].max_relative < 1e-5 < 1e-4 < certificate.layers[2].max_relative


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
