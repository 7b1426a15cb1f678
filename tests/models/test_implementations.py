"""The choice of implementations reaches the operations inside a model, and no other does."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jaxrank.errors import InputError
from jaxrank.models import layers, mamba, mamba2
from jaxrank.models.bert_config import BertConfig
from jaxrank.models.families import FAMILIES
from jaxrank.models.implementations import (
    Implementations,
    check_implementations,
    choose_implementations,
)
from jaxrank.models.mamba import MambaConfig
from jaxrank.models.mamba2 import Mamba2Config
from jaxrank.models.module import (
    RerankerConfig,
    RerankerModule,
    build_module,
    init_module,
    parameters,
)
from jaxrank.options import parse
from jaxrank.training.config import Recipe
from jaxrank.training_run.start import load_start

SMALL = {"vocab_size": 32, "hidden_size": 16, "num_layers": 2}
CONFIGS = {
    "attention": RerankerConfig("bert", BertConfig(**SMALL, num_heads=2, intermediate_size=16)),
    "selective_scan": RerankerConfig("mamba", MambaConfig(**SMALL, state_size=4)),
    "ssd": RerankerConfig("mamba2", Mamba2Config(**SMALL, state_size=4, head_size=8)),
}
CALLERS = {"attention": layers, "selective_scan": mamba, "ssd": mamba2}
OTHER_NAMES = {"attention": "blocks", "selective_scan": "associative", "ssd": "reference"}
OPERATIONS = list(CONFIGS)


@pytest.fixture
def names(monkeypatch) -> list[str]:
    """The implementations that operations are called with, from now on."""
    called: list[str] = []
    for operation, caller in CALLERS.items():
        original = getattr(caller, operation)

        def record(*arguments, original=original, implementation="auto", **options):
            called.append(implementation)
            return original(*arguments, **options)

        monkeypatch.setattr(caller, operation, record)
    return called


def trace(make_module: Callable[[], RerankerModule]) -> None:
    """Make the module and score with it, all of it in the abstract."""
    ids, mask = jnp.ones((1, 4), jnp.int32), jnp.ones((1, 4), bool)
    jax.eval_shape(lambda: make_module()(ids, mask=mask))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_choice_reaches_the_layers_of_the_stack(operation, names):
    choice = Implementations(**{operation: OTHER_NAMES[operation]})
    trace(lambda: init_module(CONFIGS[operation], seed=0, implementations=choice))
    assert set(names) == {OTHER_NAMES[operation]}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_without_a_choice_it_is_automatic(operation, names):
    trace(lambda: init_module(CONFIGS[operation], seed=0))
    assert set(names) == {"auto"}


def test_built_and_drawn_modules_take_the_same_choice(names):
    config, choice = CONFIGS["ssd"], Implementations(ssd="reference")

    def rebuild() -> RerankerModule:
        arrays = parameters(init_module(config, seed=0))
        return build_module(config, arrays, implementations=choice)

    trace(rebuild)
    assert set(names) == {"reference"}


def test_a_choice_can_be_taken_back(names):
    def choose_twice() -> RerankerModule:
        choice = Implementations(ssd="reference")
        module = init_module(CONFIGS["ssd"], seed=0, implementations=choice)
        choose_implementations(module, Implementations())
        return module

    trace(choose_twice)
    assert set(names) == {"auto"}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_that_the_model_does_not_have_is_refused(operation):
    other = OPERATIONS[OPERATIONS.index(operation) - 1]
    choice = Implementations(**{operation: OTHER_NAMES[operation]})
    with pytest.raises(InputError, match=rf"implementations.{operation}: .* has no {operation}"):
        trace(lambda: init_module(CONFIGS[other], seed=0, implementations=choice))


def test_the_recipe_chooses(names, bert_tokenizer_folder: Path):
    arguments = [
        "--model.family=bert", "--model.preset=bert-tiny", "--data.groups=g",
        f"--model.tokenizer={bert_tokenizer_folder}", "--training.output=o",
        "--training.implementations.attention=blocks",
    ]  # fmt: skip
    recipe = parse(Recipe, "jaxrank.train", arguments)
    assert recipe.training.implementations == Implementations(attention="blocks")
    trace(lambda: load_start(recipe).module)
    assert set(names) == {"blocks"}


def test_a_recipe_that_the_machine_cannot_run_is_refused_as_it_is_loaded(
    bert_tokenizer_folder: Path,
):
    arguments = [
        "--model.family=bert", "--model.preset=bert-tiny", "--data.groups=g",
        f"--model.tokenizer={bert_tokenizer_folder}", "--training.output=o",
        "--training.implementations.attention=cudnn", "--model.overrides={attention_dropout: 0.0}",
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"^training\.implementations: .* this is cpu"):
        load_start(parse(Recipe, "jaxrank.train", arguments))


def test_a_recipe_with_an_unknown_name_is_refused():
    arguments = ["--data.groups=g", "--training.output=o"]
    with pytest.raises(InputError, match=r"training\.implementations\.attention"):
        parse(Recipe, "jaxrank.train", [*arguments, "--training.implementations.attention=flash"])


@pytest.mark.parametrize(
    ("preset", "chosen", "refusal"),
    [
        # 64 x 2 channels: refused when it is lowered for a CPU, not for its size.
        ("mamba-tiny", {"selective_scan": "mosaic"}, "platform cpu came; an NVIDIA GPU"),
        ("bert-tiny", {"attention": "cudnn"}, "it needs an NVIDIA GPU, and this is cpu"),
    ],
)
def test_what_the_machine_cannot_run_is_refused_before_anything_is_begun(
    preset: str, chosen: dict[str, str], refusal: str
):
    family = preset.split("-")[0]
    backbone = replace(FAMILIES[family].presets[preset], vocab_size=100)
    module = init_module(
        RerankerConfig(family, backbone), seed=0, implementations=Implementations(**chosen)
    )
    with pytest.raises(InputError, match=rf"^training\.implementations: .*{refusal}"):
        check_implementations(module, length=16)


def test_what_the_machine_can_run_is_not_refused():
    backbone = replace(FAMILIES["bert"].presets["bert-tiny"], vocab_size=100)
    chosen = Implementations(attention="blocks")
    module = init_module(RerankerConfig("bert", backbone), seed=0, implementations=chosen)
    check_implementations(module, length=16)
