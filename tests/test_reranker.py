"""The public face: load, score, rank, save, and load the same again."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import jaxrank
from jaxrank.errors import InputError
from jaxrank.models.bert import BertConfig
from jaxrank.models.module import RerankerConfig, init_module
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import load_tokenizer

PAIRS = [
    ("What causes asthma?", "Asthma is caused by swelling of the airways. " * 20),
    ("What is acne?", "Acne is a skin condition."),
    ("Who is at risk?", ""),
]


@pytest.fixture(scope="module")
def model(bert_tokenizer_folder: Path) -> jaxrank.Reranker:
    backbone = BertConfig(
        hidden_size=32, num_layers=2, num_heads=2, intermediate_size=64, initializer_range=0.2
    )
    config = RerankerConfig("bert", backbone, head="classification")
    return jaxrank.Reranker(
        config,
        init_module(config, seed=0),
        load_tokenizer(bert_tokenizer_folder),
        TextConfig(template="pair", max_length=48),
    )


def test_scores_are_float32_and_do_not_depend_on_the_batch(model: jaxrank.Reranker) -> None:
    scores = model.predict(PAIRS)
    assert scores.dtype == np.float32
    assert scores.shape == (3,)
    np.testing.assert_allclose(model.predict(PAIRS[::-1], 1)[::-1], scores, atol=1e-5, rtol=0)


def test_documents_are_ranked_by_falling_score(model: jaxrank.Reranker) -> None:
    documents = [document for _, document in PAIRS]
    ranked = model.rank("What is acne?", documents, top_k=2, return_documents=True)
    scores = model.predict([("What is acne?", document) for document in documents])
    assert [row["corpus_id"] for row in ranked] == np.argsort(-scores)[:2].tolist()
    assert ranked[0]["score"] >= ranked[1]["score"]
    assert ranked[0]["text"] == documents[ranked[0]["corpus_id"]]
    assert "text" not in model.rank("What is acne?", documents)[0]


def test_nothing_to_rank_gives_nothing(model: jaxrank.Reranker) -> None:
    assert model.predict([]).shape == (0,)
    assert model.rank("query", []) == []


def test_truncation_and_empty_documents_are_counted(model: jaxrank.Reranker) -> None:
    before = model.truncation
    model.predict(PAIRS)
    after = model.truncation
    assert after.pairs - before.pairs == 3
    assert after.truncated_documents - before.truncated_documents == 1
    assert after.empty_documents - before.empty_documents == 1


def test_one_pair_without_a_list_is_refused_with_the_mend(model: jaxrank.Reranker) -> None:
    with pytest.raises(ValueError, match=r"predict\(\[pair\]\)"):
        model.predict(PAIRS[0])


@pytest.mark.parametrize("pair", ["ab", ("a",), ("a", "b", "c")])
def test_what_is_no_pair_of_texts_is_refused_by_its_place(
    model: jaxrank.Reranker, pair: object
) -> None:
    with pytest.raises(ValueError, match=r"pairs\[1\]: got .*\(query, document\) is needed"):
        model.predict([("a", "b"), pair])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="documents: got one text"):
        model.rank("a query", "a document")


def test_a_saved_folder_loads_to_the_same_scores(model: jaxrank.Reranker, tmp_path: Path) -> None:
    folder = model.save_pretrained(tmp_path / "model")
    again = jaxrank.Reranker.from_pretrained(folder)
    np.testing.assert_array_equal(again.predict(PAIRS), model.predict(PAIRS))
    assert again.config == model.config
    assert again.text == model.text


def test_a_folder_without_a_score_head_is_refused(model: jaxrank.Reranker, tmp_path: Path) -> None:
    folder = model.save_pretrained(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    del tensors["classifier.weight"], tensors["classifier.bias"]
    save_file(tensors, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    del config["jaxrank"], config["architectures"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"no trained score head .*head\.score.*jaxrank\.train"):
        jaxrank.Reranker.from_pretrained(folder)


def test_bfloat16_scores_are_near(model: jaxrank.Reranker, tmp_path: Path) -> None:
    folder = model.save_pretrained(tmp_path / "model")
    half = jaxrank.Reranker.from_pretrained(folder, dtype="bfloat16").predict(PAIRS)
    assert half.dtype == np.float32
    # bfloat16 has 8 bits of mantissa: 2^-8 a rounding, over two layers, on scores of order 1.
    np.testing.assert_allclose(half, model.predict(PAIRS), atol=5e-2)
