"""Tokens that a template adds: rows in the embedding, there and back through a saved folder."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
import transformers

from ckpt_convert.__main__ import main
from ckpt_convert.fresh_parameters import grow_embedding
from ckpt_convert.load import load, with_text
from ckpt_convert.save import save
from jaxrank import Reranker
from jaxrank.errors import InputError
from jaxrank.models.families import FAMILIES
from jaxrank.models.module import RerankerConfig, build_module, init_module, parameters
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import PairTokenizer, pad_pairs

MARKED = TextConfig("authors-code", max_length=48)
TOKENS = "backbone.embeddings.token.embedding"


def test_markers_get_seeded_rows_behind_those_of_the_checkpoint(checkpoint):
    folder = checkpoint("bert-classifier")
    plain, marked = load(folder), load(folder, text=MARKED)
    assert marked.text == TextConfig("authors-code-encoder", max_length=48)
    assert marked.added_tokens == ("[query]", "[passage]")
    assert marked.config.backbone.vocab_size == 30524
    assert "at random (seed 0): [query], [passage]" in marked.notes[-1]
    for path, value in plain.parameters.items():
        np.testing.assert_array_equal(marked.parameters[path][: len(value)], value)
    rows = marked.parameters[TOKENS][30522:]
    assert rows.shape == (2, 32)
    assert 0.01 < rows.std() < 0.03  # initializer_range .02
    np.testing.assert_array_equal(rows, load(folder, text=MARKED).parameters[TOKENS][30522:])
    assert np.abs(rows - load(folder, text=MARKED, seed=1).parameters[TOKENS][30522:]).min() > 0


def test_a_grown_model_is_saved_for_us_and_for_pytorch(checkpoint, tmp_path: Path):
    marked = load(checkpoint("bert-classifier"), text=MARKED)
    folder = save(
        tmp_path / "model",
        config=marked.config,
        parameters=marked.parameters,
        tokenizer=marked.tokenizer,
        text=marked.text,
    )
    again = load(folder)
    assert (again.text, again.config, again.added_tokens) == (marked.text, marked.config, ())
    for path, value in marked.parameters.items():
        np.testing.assert_array_equal(again.parameters[path], value)
    pairs = [("what causes gout", "crystals"), ("asthma", "a disease of the airways")]
    ours = Reranker.from_pretrained(folder).predict(pairs)
    encoded = PairTokenizer(again.tokenizer, again.text).encode(pairs)
    assert {30522, 30523} <= set(encoded[0].input_ids.tolist())
    batch = pad_pairs(encoded, length=16, pad_token_id=0)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = [f"[query]{query}[SEP][passage]{document}" for query, document in pairs]
    theirs = tokenizer(texts, padding="max_length", max_length=16, return_tensors="pt")
    np.testing.assert_array_equal(theirs["input_ids"], batch["input_ids"])
    with torch.no_grad():
        scores = model.eval()(**theirs).logits[:, 0].numpy()
    np.testing.assert_allclose(ours, scores, atol=1e-5)


def test_scores_of_markers_that_nothing_was_trained_with_are_refused(checkpoint, tmp_path: Path):
    folder = checkpoint("bert-classifier")
    with pytest.raises(InputError, match=r"was not trained with the tokens \[query\], \[passage\]"):
        Reranker.from_pretrained(folder, text=MARKED)
    main(["import", str(folder), str(tmp_path / "model"), "--template", "authors-code"])
    assert load(tmp_path / "model").text.template == "authors-code-encoder"
    with pytest.raises(InputError, match="holds no trained score head"):
        Reranker.from_pretrained(tmp_path / "model")


def test_rows_to_spare_are_used_before_any_is_added(checkpoint):
    loaded = load(checkpoint("bert-classifier"))
    backbone = dataclasses.replace(loaded.config.backbone, vocab_size=30523 + 5)
    spacious = dataclasses.replace(loaded.config, backbone=backbone)
    values = grow_embedding(loaded.parameters, old=loaded.config, new=spacious, seed=0)
    loaded = dataclasses.replace(loaded, config=spacious, parameters=values)
    marked = with_text(loaded, MARKED)
    assert marked.config == spacious
    assert marked.added_tokens == ("[query]", "[passage]")
    np.testing.assert_array_equal(marked.parameters[TOKENS], values[TOKENS])


@pytest.mark.parametrize("name", FAMILIES)
def test_every_familys_embedding_grows_and_nothing_else(name: str):
    presets = FAMILIES[name].presets
    smallest = min(presets.values(), key=lambda preset: (preset.num_layers, preset.hidden_size))
    smallest = dataclasses.replace(smallest, vocab_size=1000)
    old = RerankerConfig(name, smallest)
    new = dataclasses.replace(old, backbone=dataclasses.replace(smallest, vocab_size=1002))
    values = jax.eval_shape(lambda: parameters(init_module(old, seed=0)))
    values = {path: np.ones(value.shape, np.float32) for path, value in values.items()}
    grown = grow_embedding(values, old=old, new=new, seed=0)
    build_module(new, grown)
    (path,) = [path for path, value in grown.items() if value.shape != values[path].shape]
    assert grown[path].shape[0] == 1002
    assert (grown[path][:1000] == 1).all()
    drawn = np.asarray(jax.jit(lambda: parameters(init_module(new, seed=0))[path])())
    np.testing.assert_allclose(grown[path][1000:], drawn[1000:], rtol=1e-5)
    assert np.abs(drawn[1000:]).min() > 0
