"""What a recipe's options make of the input of a run."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from jaxrank.data.collection import Collection
from jaxrank.errors import InputError
from jaxrank.models.module import init_module
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import PairTokenizer, load_tokenizer
from jaxrank.training.config import DataConfig, ModelConfig, Recipe, TrainingConfig
from jaxrank.training.group_scores import score_groups
from jaxrank.training.losses import LossConfig
from jaxrank.training.starting_model import random_architecture
from jaxrank.training_run.data import RunBatches, load_groups, make_batches

NUM_GROUPS = 8


@pytest.fixture(scope="module")
def collection(medquad_mini: Path) -> Collection:
    return Collection.open(medquad_mini)


@pytest.fixture
def tokenizer(bert_tokenizer_folder: Path) -> PairTokenizer:
    """One for each test: threads that make batches ahead go on counting for a while."""
    return PairTokenizer(load_tokenizer(bert_tokenizer_folder), TextConfig(max_length=192))


@pytest.fixture
def load(
    tmp_path: Path, collection: Collection, tokenizer: PairTokenizer
) -> Callable[..., RunBatches]:
    """Loads batches of four groups with three negatives, from groups that have teacher scores."""
    names = list(collection.documents)
    lines = []
    for number, query_id in enumerate(list(collection.split_queries("train"))[:NUM_GROUPS]):
        documents = names[number * 5 : number * 5 + 5]
        group = {
            "query_id": query_id,
            "positive_id": documents[0],
            "negative_ids": documents[1:],
            "positive_score": 5.0,
            "negative_scores": [4.0, 3.0, 2.0, 1.0],
        }
        lines.append(json.dumps(group) + "\n")
    (tmp_path / "groups.jsonl").write_text("".join(lines))

    def load(*, loss: str = "info_nce", accumulation: int = 1, **changes: object) -> RunBatches:
        data = DataConfig(groups=tmp_path / "groups.jsonl", negatives=3, groups_per_batch=4)
        training = TrainingConfig(output=tmp_path / "run", steps=1, accumulation=accumulation)
        recipe = Recipe(
            data=replace(data, **changes), training=training, loss=LossConfig(name=loss)
        )
        groups = load_groups(recipe, collection)
        assert len(groups.groups) == NUM_GROUPS
        return make_batches(recipe, groups, collection, tokenizer)

    return load


def first(data: RunBatches) -> list[dict[str, np.ndarray]]:
    return list(islice(data.batches, 2))


def test_plain_options_make_padded_batches_without_notes(load):
    data = load()
    assert data.notes == ()
    assert first(data)[0]["input_ids"].shape[:2] == (4, 4)
    assert "targets" not in first(data)[0]


def test_pretokenising_says_what_it_did_and_changes_no_batch(load):
    data = load(pretokenize=True)
    assert len(data.notes) == 1
    assert data.notes[0].startswith(f"pretokenised {NUM_GROUPS} queries and 40 documents: ")
    for one, other in zip(first(data), first(load()), strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize("packing", [False, True])
def test_a_token_store_changes_no_batch(load, tmp_path: Path, packing: bool):
    expected = first(load(packing=packing))
    for words in ("48 tokenised now", "48 of them from disk and 0 tokenised now"):
        data = load(packing=packing, token_store=tmp_path / "tokens")
        assert data.notes[0].startswith(f"token store {tmp_path / 'tokens'}: {NUM_GROUPS} queries")
        assert words in data.notes[0]
        for one, other in zip(first(data), expected, strict=True):
            assert one.keys() == other.keys()
            for name in one:
                np.testing.assert_array_equal(one[name], other[name])


def test_a_token_store_keeps_other_fields_of_a_document_apart(
    load, collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    load(token_store=tmp_path / "tokens")
    monkeypatch.setattr(collection.documents, "document_text", "body")
    note = load(token_store=tmp_path / "tokens").notes[0]
    assert f"{NUM_GROUPS} of them from disk and 40 tokenised now" in note


def test_a_file_where_the_token_store_should_be_is_refused(load, tmp_path: Path):
    (tmp_path / "tokens").write_text("")
    with pytest.raises(InputError, match="a folder is to be written here, this is a file"):
        load(token_store=tmp_path / "tokens")


def test_packing_says_how_well_it_packs(load, tokenizer: PairTokenizer):
    data = load(packing=True)
    assert "the 16 pairs of the first 4 groups" in data.notes[0]
    assert "rows of 192 tokens" in data.notes[0]
    assert tokenizer.counts.pairs == 0
    assert first(data)[0]["segment_ids"].shape[1:] == (192,)


def test_accumulation_cuts_batches_into_parts(load):
    assert first(load(accumulation=2))[0]["input_ids"].shape[:3] == (2, 2, 4)


def test_a_loss_with_a_teacher_gets_its_scores(load):
    targets = first(load(loss="margin_mse"))[0]["targets"]
    assert (targets[:, 0] == 5).all()
    assert set(targets[:, 1:].ravel().tolist()) <= {1, 2, 3, 4}


def test_each_process_of_several_gets_its_share(load, monkeypatch: pytest.MonkeyPatch):
    whole = first(load())
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for index in range(2):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        data = load()
        assert data.notes[0].startswith("pretokenised")
        for batch, all_of_it in zip(first(data), whole, strict=True):
            own = all_of_it["input_ids"][2 * index : 2 * index + 2]
            np.testing.assert_array_equal(batch["input_ids"], own)


def test_a_model_gives_packed_batches_the_scores_of_padded_ones(load):
    sizes = {"num_layers": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 32}
    model = ModelConfig(family="bert", preset="minilm-l6", overrides=sizes)
    graph, parameters = nnx.split(init_module(random_architecture(model), seed=0))
    # A random start gives all pairs nearly the same score.
    parameters = jax.tree.map(lambda value: 4 * value, parameters)
    score = jax.jit(lambda batch: score_groups(nnx.merge(graph, parameters), batch))
    padded, packed = first(load())[0], first(load(packing=True))[0]
    assert packed["segment_ids"].shape[0] < 16
    expected = score(padded)
    assert np.ptp(expected) > 0.05
    np.testing.assert_allclose(score(packed), expected, rtol=1e-5, atol=1e-5)
