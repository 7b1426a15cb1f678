"""What a training run starts from: the module, its tokenizer, and the two ways it reads texts."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from transformers import PreTrainedTokenizerFast

from ckpt_convert.adapters import is_adapter
from ckpt_convert.fresh_parameters import add_template_tokens
from ckpt_convert.load import default_text, load, with_text
from ckpt_convert.tokenizer_folder import fit_token_types
from jaxrank.errors import InputError
from jaxrank.models.families import get_family
from jaxrank.models.implementations import Implementations, check_implementations
from jaxrank.models.lora import LoraConfig, add_lora, count_trained, trained
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
from jaxrank.training.text_options import text_options_named


class Start(NamedTuple):
    """What training starts from."""

    config: RerankerConfig
    dtype: np.dtype
    """What the model computes in."""
    module: RerankerModule
    tokenizer: PreTrainedTokenizerFast

    text: TextConfig
    """Template and budgets of training."""

    evaluation_text: TextConfig
    """Those of the dev measure and of the saved model."""

    notes: tuple[str, ...]
    """For the user, one line each."""

    lora: LoraConfig | None = None
    """The adapters in the module; None: there are none, and all parameters are trained."""

    base_vocabulary: int = 0
    """Rows of the checkpoint's token table; the template may have added some."""

    @property
    def trained(self) -> Any:
        """The NNX filter of the parameters that are trained."""
        return nnx.Param if self.lora is None else trained


def load_start(recipe: Recipe) -> Start:
    """Load the checkpoint or draw the random start that the recipe names.

    Raises:
        InputError: it cannot be read, or tokenizer, template and lengths do not fit it.
    """
    model = recipe.model
    dtype = compute_dtype(model.dtype)
    remat = recipe.training.remat
    options: dict[str, Any] = {
        "dtype": dtype,
        "remat": None if remat == "auto" else remat,
        "unroll": recipe.training.unroll,
        "implementations": recipe.training.implementations,
    }
    if model.init_from is None:
        config = random_architecture(model)
        tokenizer = fit_token_types(config, load_tokenizer(str(model.tokenizer)))
        check_vocabulary(config, vocabulary_size(tokenizer))
        text, evaluation_text = _texts(recipe, default_text(config), config)
        with text_options_named():
            config, tokenizer, _ = add_template_tokens(config, tokenizer, text)
        module = init_module(config, seed=model.seed, **options)
        notes: tuple[str, ...] = ()
        base_vocabulary = config.backbone.vocab_size
    else:
        _check_whole(model.init_from)
        loaded = load(
            model.init_from,
            head=model.head,
            seed=model.seed,
            tokenizer=model.tokenizer,
            allow_pickle=model.allow_pickle,
        )
        base_vocabulary = loaded.config.backbone.vocab_size
        text, evaluation_text = _texts(recipe, loaded.text, loaded.config)
        with text_options_named():
            loaded = with_text(loaded, text, seed=model.seed)
        config, tokenizer = override(loaded.config, model), loaded.tokenizer
        module = build_module(config, loaded.parameters, release=True, **options)
        notes = tuple(f"{model.init_from}: {note}" for note in loaded.notes)
    notes += attention_notes(config, recipe.training.implementations.attention)
    if recipe.training.implementations != Implementations():
        check_implementations(module, length=text.max_length)
    if evaluation_text != text:
        first, later = describe_text(text), describe_text(evaluation_text)
        notes += (f"text: {first} in training, {later} at evaluation, as the model is saved",)
    lora = None
    if recipe.lora.rank is not None:
        lora = recipe.lora
        notes += _adapt(module, lora, seed=model.seed)
    return Start(
        config,
        dtype,
        module,
        tokenizer,
        text,
        evaluation_text,
        notes,
        lora=lora,
        base_vocabulary=base_vocabulary,
    )


def compute_dtype(name: str) -> np.dtype:
    """The dtype that `model.dtype` stands for on this machine."""
    if name == "auto":
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return jnp.dtype(name)


def describe_text(text: TextConfig) -> str:
    """Template and longest sequence in a few words."""
    return f"template {text.template} of at most {text.max_length} tokens"


def _adapt(module: RerankerModule, config: LoraConfig, *, seed: int) -> tuple[str, ...]:
    """Put the adapters into the module, and say so."""
    targets = add_lora(module, config, seed=seed)
    count, whole = count_trained(module)
    notes = [
        f"lora: adapters of rank {config.rank} in {', '.join(targets)}; with the score head "
        f"{count:,} numbers are trained, {count / whole:.2%} of the model's {whole:,}"
    ]
    if module.config.family in ("mamba", "mamba2") and "out_proj" in targets:
        notes.append(
            "lora: peft reads no adapter of a Mamba's out_proj; the merged model can be read by "
            "all that read the base"
        )
    return tuple(notes)


def attention_notes(config: RerankerConfig, implementation: str) -> tuple[str, ...]:
    """What to say of dropout on attention probabilities, which cuDNN's fused attention has not.

    Args:
        implementation: the choice of `training.implementations.attention`.

    Raises:
        InputError: cuDNN is asked for and the model has such dropout.
    """
    backbone = config.backbone
    option = "attention_dropout" if hasattr(backbone, "attention_dropout") else "dropout"
    rate = getattr(backbone, option, 0.0)
    if rate == 0:
        return ()
    mend = f"model.overrides.{option} 0, which departs from the published recipe"
    if implementation == "cudnn":
        raise InputError(
            f"training.implementations.attention: cudnn came, which has no dropout, and the "
            f"model's is {rate}; auto is needed, or {mend}"
        )
    if implementation != "auto" or jax.default_backend() != "gpu":
        return ()
    return (
        f"attention: a dropout of {rate} on its probabilities keeps training from cuDNN's fused "
        f"attention; what would free it is {mend}",
    )


def _check_whole(source: str) -> None:
    if is_adapter(Path(source)):
        raise InputError(
            f"model.init_from: {source} holds adapters alone; merge them first: "
            f"python -m ckpt_convert import {source} NEW_FOLDER"
        )


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
