"""What in-batch negatives need of a model and a template, and what they leave out of a run."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from jaxrank.data.collection import Collection
from jaxrank.data.groups import Group, TrainingData
from jaxrank.errors import InputError
from jaxrank.models.families import FAMILIES
from jaxrank.models.module import RerankerConfig, RerankerModule
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import load_tokenizer
from jaxrank.training.config import DataConfig, ModelConfig, Recipe, TrainingConfig
from jaxrank.training.losses import LossConfig
from jaxrank.training_run.batch_size import longest_batch
from jaxrank.training_run.in_batch import SideLengths, check_in_batch, find_relevant
from jaxrank.training_run.start import Start

GROUPS = [Group("q1", "d1", ("d2",)), Group("q2", "d3", ("d2",)), Group("q1", "d4", ("d5",))]


def make_recipe(**data: object) -> Recipe:
    settings = {"groups": Path("g"), "negatives": 1, "groups_per_batch": 3} | data
    return Recipe(
        model=ModelConfig(family="mamba", preset="mamba-tiny", tokenizer="t"),
        data=DataConfig(**settings),
        loss=LossConfig(in_batch_negatives=True),
        training=TrainingConfig(output=Path("run"), steps=10),
    )


@pytest.fixture(scope="module")
def start(neox_tokenizer_folder: Path) -> Start:
    """As a recipe's, but that the module has shapes alone."""
    backbone = replace(FAMILIES["mamba"].presets["mamba-tiny"], num_layers=1)
    config = RerankerConfig("mamba", backbone)
    module = nnx.eval_shape(lambda: RerankerModule(config, rngs=nnx.Rngs(params=0)))
    text = TextConfig(template="paper-decoder", max_length=64)
    tokenizer = load_tokenizer(neox_tokenizer_folder)
    return Start(config, np.dtype(np.float32), module, tokenizer, text, text, notes=())


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    """A query of which a document is judged relevant that is no positive, and one judged 0."""
    (tmp_path / "corpus.jsonl").write_text(
        "".join(f'{{"_id": "d{number}", "text": "word"}}\n' for number in range(6))
    )
    (tmp_path / "queries.jsonl").write_text(
        "".join(f'{{"_id": "q{number}", "text": "word {number}"}}\n' for number in range(3))
    )
    (tmp_path / "qrels.train.txt").write_text("q2 0 d1 2\nq2 0 d4 0\n")
    return Collection.open(tmp_path)


@pytest.fixture
def data(collection: Collection) -> TrainingData:
    return TrainingData(GROUPS, collection.queries, collection.documents)


def test_the_longest_sides_make_up_the_longest_pair(start: Start):
    recipe = make_recipe()
    assert check_in_batch(recipe, start) == SideLengths(document=14, query=50)
    assert check_in_batch(replace(recipe, loss=LossConfig()), start) is None


@pytest.mark.parametrize(
    ("family", "template", "message"),
    [
        ("bert", "paper-decoder", "'bert' has no document states: "),
        (
            "opt",
            "paper-decoder",
            "family 'opt' keeps keys and values of every token, .* mamba2 is needed",
        ),
        ("mamba", "pair", "'pair' cuts the longer text first, .* e.g. 'paper-decoder'"),
    ],
)
def test_what_has_no_states_to_share_is_refused(
    family: str, template: str, message: str, start: Start, bert_tokenizer_folder: Path
):
    other = start._replace(
        config=RerankerConfig(family, FAMILIES[family].presets[f"{family}-tiny"]),
        text=replace(start.text, template=template),
    )
    if template == "pair":  # of which GPT-NeoX's tokenizer has not the tokens
        other = other._replace(tokenizer=load_tokenizer(bert_tokenizer_folder))
    with pytest.raises(InputError, match=f"^loss.in_batch_negatives: .*{message}"):
        check_in_batch(make_recipe(), other)


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


def test_queries_that_repeat_another_s_text_are_counted(collection: Collection):
    queries = {"q1": "same", "q2": "same"}
    data = TrainingData(GROUPS, queries, collection.documents)
    relevant, note = find_relevant(make_recipe(), data, None)
    assert relevant == {name: {"d1", "d3", "d4"} for name in queries}
    assert "; 1 query repeats the text of another and shares what is relevant)" in note


def test_without_judgements_the_groups_alone_say_and_that_is_told(
    collection: Collection, data: TrainingData
):
    (collection.folder / "qrels.train.txt").unlink()
    relevant, note = find_relevant(make_recipe(collection=collection.folder), data, collection)
    assert relevant == {"q1": {"d1", "d4"}, "q2": {"d3"}}
    assert "2 are left out as relevant (by the groups' positives alone, as no qrels" in note


def test_a_split_that_is_named_must_be_there(collection: Collection, data: TrainingData):
    recipe = make_recipe(collection=collection.folder, relevance_split="test")
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
