"""What a run's start came to, as a resume compares it."""

from dataclasses import replace
from pathlib import Path

from jaxrank.training.config import DataConfig, ModelConfig, Recipe, TrainingConfig
from jaxrank.training_run.provenance import start_digest
from jaxrank.training_run.start import load_start


def make_recipe(tokenizer: Path, **model: object) -> Recipe:
    random_start = {"family": "bert", "preset": "bert-tiny", "tokenizer": str(tokenizer)}
    return Recipe(
        model=ModelConfig(**(random_start | model)),
        data=DataConfig(groups=Path("groups.jsonl")),
        training=TrainingConfig(output=Path("run"), steps=1),
    )


def test_another_constant_of_the_model_is_another_start(bert_tokenizer_folder: Path):
    recipe = make_recipe(bert_tokenizer_folder)
    other = make_recipe(bert_tokenizer_folder, overrides={"layer_norm_epsilon": 1e-5})
    digest = start_digest(recipe, load_start(recipe))
    assert start_digest(recipe, load_start(recipe)) == digest
    assert start_digest(other, load_start(other)) != digest


def test_what_a_hub_gave_is_told_by_its_numbers(bert_tokenizer_folder: Path):
    recipe = make_recipe(bert_tokenizer_folder)
    start = load_start(recipe)
    fetched = replace(recipe, model=ModelConfig(init_from="owner/model"))
    digest = start_digest(fetched, start)
    bias = start.module.head.score.bias
    bias.set_value(bias.get_value() + 1)
    assert start_digest(fetched, start) != digest
