"""Recipes that cannot be run are refused with the keys to mend."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jaxrank.errors import InputError
from jaxrank.options import parse
from jaxrank.text.templates import TextConfig
from jaxrank.training.config import (
    DataConfig,
    DevConfig,
    ModelConfig,
    Recipe,
    TextOptions,
    TrainingConfig,
    count_steps,
)
from jaxrank.training.recipe_checks import check_recipe

MODEL_CONFIGS = Path(__file__).parents[2] / "configs" / "models"


def make_recipe(section: str | None = None, **values: Any) -> Recipe:
    recipe = Recipe(
        model=ModelConfig(init_from="folder"),
        data=DataConfig(collection=Path("c"), groups=Path("g")),
        training=TrainingConfig(output=Path("o"), steps=10),
    )
    if section is None:
        return recipe
    return replace(recipe, **{section: replace(getattr(recipe, section), **values)})


def test_a_complete_recipe_passes():
    check_recipe(make_recipe())
    random_start = {"family": "bert", "preset": "bert-base", "tokenizer": "t", "init_from": None}
    check_recipe(make_recipe("model", **random_start, overrides={"num_layers": 2}))


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("model", {"init_from": None}, "model.init_from, model.family: .* exactly one"),
        ("model", {"family": "bert"}, "model.init_from, model.family: .* exactly one"),
        ("model", {"preset": "bert-base"}, "model.preset: got bert-base"),
        ("model", {"init_from": None, "family": "bert"}, "model.preset: a random start"),
        (
            "model",
            {"init_from": None, "family": "bert", "preset": "bert-base"},
            "model.tokenizer: a random start",
        ),
        ("training", {"steps": None}, "training.steps, training.epochs: got None, None"),
        ("training", {"epochs": 1.0}, "training.steps, training.epochs: got 10, 1.0"),
        ("training", {"milestones": 0}, "training.milestones: got 0; a positive number"),
        ("data", {"negatives": 0}, "data.negatives: got 0; a positive number"),
        ("dev", {"depth": -1}, "dev.depth: got -1; a positive number"),
        ("training", {"steps": None, "epochs": 1e300}, "training.epochs: got 1e\\+300; a positive"),
        ("training", {"seed": -1}, "training.seed: got -1; a number from 0"),
        ("model", {"seed": 2**32}, "model.seed: got 4294967296; a number from 0"),
        ("dev", {"seed": -1}, "dev.seed: got -1; a number from 0"),
        ("loss", {"name": "kl_distillation", "temperature": 0.0}, "loss.temperature: got 0.0; a n"),
        ("loss", {"temperature": 2.0}, "loss.temperature: got 2.0; info_nce has no temperature"),
        ("loss", {"name": "ranknet", "contrastive_weight": -0.5}, "loss.contrastive_weight: got -"),
        ("loss", {"contrastive_weight": 0.5}, "contrastive_weight: got 0.5; info_nce is InfoNCE"),
    ],
)
def test_what_cannot_be_run_is_named(section: str, values: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        check_recipe(make_recipe(section, **values))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": {"name": "margin_mse"}}, "in_batch_negatives: margin_mse learns from a value of"),
        ({"loss": {"name": "ranknet"}}, "loss.name info_nce or localized_contrastive is needed"),
        ({"data": {"packing": True}}, "got true with data.packing, .* must be false"),
        ({"training": {"accumulation": 8}}, "where no groups meet: .* 8 in training.accumulation"),
        (
            {"data": {"relevance_split": "train", "collection": None}},
            "data.relevance_split: got train; its qrels are",
        ),
        (
            {"data": {"relevance_split": "train"}, "loss": {"in_batch_negatives": False}},
            "data.relevance_split: got train; it says what is no negative under loss.in_batch",
        ),
    ],
)
def test_in_batch_negatives_are_refused_where_they_cannot_be(
    changes: dict[str, dict[str, Any]], message: str
):
    recipe = make_recipe("loss", in_batch_negatives=True)
    check_recipe(recipe)
    for section, values in changes.items():
        recipe = replace(recipe, **{section: replace(getattr(recipe, section), **values)})
    with pytest.raises(InputError, match=message):
        check_recipe(recipe)


def test_an_epoch_is_every_group_once():
    config = TrainingConfig(output=Path("o"), epochs=1.0)
    assert count_steps(config, num_groups=734_008, groups_per_batch=8) == 91_751
    assert count_steps(replace(config, epochs=0.5), num_groups=100, groups_per_batch=8) == 7
    assert count_steps(config, num_groups=11, groups_per_batch=8) == 2
    assert count_steps(replace(config, epochs=0.01), num_groups=8, groups_per_batch=8) == 1
    steps = replace(config, epochs=None, steps=7)
    assert count_steps(steps, num_groups=100, groups_per_batch=8) == 7


def test_papers_values_are_the_defaults():
    recipe = make_recipe()
    assert recipe.optimizer.betas == (0.9, 0.999)
    assert recipe.optimizer.weight_decay == 0.01
    assert recipe.data.negatives == 7
    assert recipe.data.groups_per_batch == 8
    assert recipe.training.milestones == 10
    assert DevConfig().run is None


def test_text_comes_from_the_checkpoint_where_the_recipe_says_nothing():
    base = TextConfig(template="paper-decoder", max_length=128, query_length=20)

    def resolve(**values: object) -> TextConfig:
        return TextOptions(**values).resolve(base, wording="decoder")

    assert resolve() == resolve(template="paper") == base
    assert resolve(max_length=64) == replace(base, max_length=64)
    assert resolve(template="pair") == TextConfig("pair", 128, None)
    assert resolve(template="authors-code").template == "authors-code-decoder"


def test_text_at_evaluation_is_that_of_training_unless_the_recipe_says_otherwise():
    trained = TextConfig("authors-code-decoder", max_length=512, query_length=20)

    def resolve(**values: object) -> TextConfig:
        return TextOptions(**values).resolve_evaluation(trained, wording="decoder")

    # template and max_length are training's; they are in `trained` already.
    assert resolve(template="pair", max_length=9) == trained
    assert resolve(evaluation_max_length=768) == replace(trained, max_length=768)
    other = resolve(evaluation_template="authors-code-evaluation", evaluation_max_length=768)
    assert other == TextConfig("authors-code-decoder-evaluation", max_length=768)


def test_tokens_that_training_never_shows_are_refused_at_evaluation():
    options = TextOptions(evaluation_template="authors-code")
    with pytest.raises(InputError, match=r"adds \[passage\], \[query\] .* on paper-encoder never"):
        options.resolve_evaluation(TextConfig("paper-encoder"), wording="encoder")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"template": "papre"}, "text.template: got 'papre'; did you mean 'paper'?"),
        ({"max_length": 0}, "text.max_length: got 0; at least 1"),
        ({"query_length": 512}, "text.query_length: got 512; it must be above 0"),
        ({"evaluation_template": "papre"}, "text.evaluation_template: got 'papre'; did"),
        ({"evaluation_max_length": 0}, "text.evaluation_max_length: got 0; at least 1"),
        ({"query_length": 60, "evaluation_max_length": 50}, "text.query_length: got 60; it must"),
    ],
)
def test_errors_about_texts_name_the_option(values: dict[str, Any], message: str):
    options = TextOptions(**values)
    with pytest.raises(InputError) as caught:
        trained = options.resolve(TextConfig("paper-decoder"), wording="decoder")
        options.resolve_evaluation(trained, wording="decoder")
    assert str(caught.value).startswith(message)


def test_a_dev_measure_needs_the_collection():
    recipe = make_recipe("data", collection=None)
    with pytest.raises(InputError, match=r"dev\.run: .*data\.collection"):
        check_recipe(replace(recipe, dev=replace(recipe.dev, run=Path("bm25.run"))))


def test_a_choice_of_fields_needs_the_collection_that_has_them():
    recipe = make_recipe("data", collection=None, document_text="body")
    with pytest.raises(InputError, match=r"data\.document_text: got body; .*data\.collection"):
        check_recipe(recipe)


@pytest.mark.parametrize("name", sorted(path.name for path in MODEL_CONFIGS.glob("*.yaml")))
def test_every_models_config_is_a_layer_over_a_recipe(name: str):
    layers = [MODEL_CONFIGS.parent / "medquad-minilm.yaml", MODEL_CONFIGS / name]
    recipe = parse(Recipe, "jaxrank.train", [f"--config={layer}" for layer in layers])
    check_recipe(recipe)
    hub_name = str(recipe.model.init_from).partition("/")[2].lower()
    assert hub_name.startswith(name.removesuffix(".yaml"))
