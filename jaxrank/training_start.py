"""What a training run starts from: the module, its tokenizer, and the two ways it reads texts."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from transformers import PreTrainedTokenizerFast

from ckpt_convert.fresh_parameters import add_template_tokens
from ckpt_convert.load import default_text, load, with_text
from ckpt_convert.tokenizer_folder import fit_token_types
from jaxrank.models.families import get_family
from jaxrank.models.module import RerankerConfig, RerankerModule, build_module, init_module
from jaxrank.text.added_tokens import vocabulary_size
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import load_tokenizer
from jaxrank.training.config import Recipe
from jaxrank.training.starting_model import (
    check_length,
    check_vocabulary,
    override,
    random_architecture,
)


class Start(NamedTuple):
    """What training starts from."""

    config: RerankerConfig
    module: RerankerModule
    tokenizer: PreTrainedTokenizerFast

    text: TextConfig
    """Template and budgets of training."""

    evaluation_text: TextConfig
    """Those of the dev measure and of the saved model."""

    notes: tuple[str, ...]
    """For the user, one line each."""


def load_start(recipe: Recipe) -> Start:
    """Load the checkpoint or draw the random start that the recipe names.

    Raises:
        InputError: it cannot be read, or tokenizer, template and lengths do not fit it.
    """
    model = recipe.model
    options: dict[str, Any] = {
        "dtype": jnp.dtype(model.dtype),
        "remat": recipe.training.remat,
        "unroll": recipe.training.unroll,
    }
    if model.init_from is None:
        config = random_architecture(model)
        tokenizer = fit_token_types(config, load_tokenizer(str(model.tokenizer)))
        check_vocabulary(config, vocabulary_size(tokenizer))
        text, evaluation_text = _texts(recipe, default_text(config), config)
        config, tokenizer, _ = add_template_tokens(config, tokenizer, text)
        module = init_module(config, seed=model.seed, **options)
        notes: tuple[str, ...] = ()
    else:
        loaded = load(
            model.init_from,
            head=model.head,
            seed=model.seed,
            tokenizer=model.tokenizer,
            allow_pickle=model.allow_pickle,
        )
        text, evaluation_text = _texts(recipe, loaded.text, loaded.config)
        loaded = with_text(loaded, text, seed=model.seed)
        config, tokenizer = override(loaded.config, model), loaded.tokenizer
        module = build_module(config, loaded.parameters, release=True, **options)
        notes = tuple(f"{model.init_from}: {note}" for note in loaded.notes)
    if evaluation_text != text:
        trained, evaluated = describe_text(text), describe_text(evaluation_text)
        notes += (f"text: {trained} in training, {evaluated} at evaluation, as the model is saved",)
    return Start(config, module, tokenizer, text, evaluation_text, notes)


def describe_text(text: TextConfig) -> str:
    """Template and longest sequence in a few words."""
    return f"template {text.template} of at most {text.max_length} tokens"


def _texts(
    recipe: Recipe, base: TextConfig, config: RerankerConfig
) -> tuple[TextConfig, TextConfig]:
    """How texts are read in training and at evaluation."""
    wording = get_family(config.family).wording
    text = recipe.text.resolve(base, wording=wording)
    evaluation_text = recipe.text.resolve_evaluation(text, wording=wording)
    check_length(config, text.max_length, option="text.max_length")
    check_length(config, evaluation_text.max_length, option="text.evaluation_max_length")
    return text, evaluation_text
