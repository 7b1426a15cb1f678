"""What in-batch negatives need of a model and a template, and what they leave out of a run."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jaxrank.data.collection import Collection
from jaxrank.data.groups import Group, TrainingData
from jaxrank.errors import InputError
from jaxrank.training.config import DataConfig, ModelConfig, Recipe, TextOptions, TrainingConfig
from jaxrank.training.losses import LossConfig
from jaxrank.training_run.batch_size import longest_batch
from jaxrank.training_run.in_batch import SideLengths, check_in_batch, find_relevant
from jaxrank.training_run.start import load_start

PRESETS = {"bert": "bert-tiny", "mamba": "mamba-tiny", "opt": "opt-tiny"}
GROUPS = [Group("q1", "d1", ("d2",)), Group("q2", "d3", ("d2",)), Group("q1", "d4", ("d5",))]


def make_recipe(
    family: str = "mamba", *, tokenizer: Path = Path("t"), template: str = "paper", **data: object
) -> Recipe:
    settings = {"groups": Path("g"), "negatives": 1, "groups_per_batch": 3} | data
    return Recipe(
        model=ModelConfig(
            family=family,
            preset=PRESETS[family],
            overrides={"num_layers": 1} | ({"vocab_size": 50_277} if family == "opt" else {}),
            tokenizer=str(tokenizer),
        ),
        text=TextOptions(template=template, max_length=64),
        data=DataConfig(**settings),
        loss=LossConfig(in_batch_negatives=True),
        training=TrainingConfig(output=Path("run"), steps=10),
    )


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    """A query of which a document is judged relevant that is no positive, and one judged 0."""
    (tmp_path / "corpus.jsonl").write_text(
        "".join(f'{{"_id": "d{number}", "text": "word"}}\n' for number in range(6))
    )
    (tmp_path / "queries.jsonl").write_text(
        "".join(f'{{"_id": "q{number}", "text": "word"}}\n' for number in range(3))
    )
    (tmp_path / "qrels.train.txt").write_text("q2 0 d1 2\nq2 0 d4 0\n")
    return Collection.open(tmp_path)


@pytest.fixture
def data(collection: Collection) -> TrainingData:
    return TrainingData(GROUPS, collection.queries, collection.documents)


def test_the_longest_sides_make_up_the_longest_pair(neox_tokenizer_folder: Path):
    recipe = make_recipe(tokenizer=neox_tokenizer_folder)
    sides = check_in_batch(recipe, load_start(recipe))
    assert sides == SideLengths(document=14, query=50)
    plain = replace(recipe, loss=LossConfig())
    assert check_in_batch(plain, load_start(plain)) is None


@pytest.mark.parametrize(
    ("family", "template", "message"),
    [
        ("bert", "paper", "'bert' has no document states: "),
        ("opt", "paper", "family 'opt' keeps keys and values of every token, .* mamba2 is needed"),
        ("mamba", "pair", "'pair' cuts the longer text first, .* e.g. 'paper-decoder'"),
    ],
)
def test_what_has_no_states_to_share_is_refused(
    family: str,
    template: str,
    message: str,
    neox_tokenizer_folder: Path,
    bert_tokenizer_folder: Path,
):
    tokenizer = neox_tokenizer_folder if family == "opt" else bert_tokenizer_folder
    recipe = make_recipe(family, tokenizer=tokenizer, template=template)
    with pytest.raises(InputError, match=f"^loss.in_batch_negatives: .*{message}"):
        check_in_batch(recipe, load_start(recipe))


def test_judgements_of_training_queries_are_found_where_nobody_names_them(
    collection: Collection, data: TrainingData
):
    recipe = make_recipe(collection=collection.folder)
    relevant, note = find_relevant(recipe, data, collection)
    assert relevant == {"q1": {"d1", "d4"}, "q2": {"d1", "d3"}}
    # q1 meets the positives of its groups, and q2 the judged one; each pair of groups shares d2.
    assert "a query meets the 6 documents of 3 groups" in note
    assert "of 12 pairs across groups in the first batch, 3 are left out as relevant" in note
    assert "(by qrels of split train and the groups' positives) and 3 as repeated" in note


def test_without_judgements_the_groups_alone_say_and_that_is_told(
    collection: Collection, data: TrainingData
):
    (collection.folder / "qrels.train.txt").unlink()
    relevant, note = find_relevant(make_recipe(collection=collection.folder), data, collection)
    assert relevant == {"q1": {"d1", "d4"}, "q2": {"d3"}}
    assert "2 are left out as relevant (by the groups' positives alone, as no qrels" in note


def test_a_split_that_is_named_must_be_there(collection: Collection, data: TrainingData):
    recipe = make_recipe(collection=collection.folder, split="test")
    with pytest.raises(InputError, match=r"split 'test'.*splits there: train"):
        find_relevant(recipe, data, collection)


def test_the_longest_batch_has_all_arrays_of_a_step():
    recipe = make_recipe(groups_per_batch=4)
    recipe = replace(recipe, training=replace(recipe.training, accumulation=2))
    batch = longest_batch(recipe, max_length=64, sides=SideLengths(document=40, query=24))
    assert {name: (array.shape, array.dtype) for name, array in batch.items()} == {
        "candidate_mask": ((2, 2, 4), np.bool_),
        "document_ids": ((2, 2, 2, 40), np.int32),
        "document_mask": ((2, 2, 2, 40), np.bool_),
        "query_ids": ((2, 2, 24), np.int32),
        "query_mask": ((2, 2, 24), np.bool_),
    }
