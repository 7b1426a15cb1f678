"""What a recipe's values must be, apart from one another and together; nothing is loaded for it."""

import math
from collections.abc import Mapping
from dataclasses import fields

from jaxrank.errors import InputError
from jaxrank.models.lora import LoraConfig
from jaxrank.training.config import ModelConfig, Recipe
from jaxrank.training.losses import LossConfig, targets_of

_LARGEST_NUMBER = 10**9
_LARGEST_RANK = 4096


def check_recipe(recipe: Recipe) -> None:
    """Raise InputError for the first value that cannot be used, before anything is loaded."""
    model, training = recipe.model, recipe.training
    _need(
        (model.init_from is None) != (model.family is None),
        f"model.init_from, model.family: got {model.init_from}, {model.family}; "
        "exactly one of them is needed",
    )
    if model.family is not None:
        _need(model.preset is not None, "model.preset: a random start needs the size to start at")
        _need(model.tokenizer is not None, "model.tokenizer: a random start needs a tokenizer")
    else:
        _need(
            model.preset is None,
            f"model.preset: got {model.preset}; with model.init_from the checkpoint says the size",
        )
    _need(
        (training.steps is None) != (training.epochs is None),
        f"training.steps, training.epochs: got {training.steps}, {training.epochs}; "
        "exactly one of them is needed",
    )
    _need(
        recipe.dev.run is None or recipe.data.collection is not None,
        f"dev.run: got {recipe.dev.run}; its texts and judgements are in data.collection, "
        "which is needed too",
    )
    _need(
        recipe.data.document_text is None or recipe.data.collection is not None,
        f"data.document_text: got {recipe.data.document_text}; it chooses among the fields of the "
        "documents of data.collection, which is needed too",
    )
    positive: Mapping[str, float | None] = {
        "data.negatives": recipe.data.negatives,
        "data.min_negatives": recipe.data.min_negatives,
        "data.groups_per_batch": recipe.data.groups_per_batch,
        "data.num_threads": recipe.data.num_threads,
        "dev.depth": recipe.dev.depth,
        "dev.queries": recipe.dev.queries,
        "dev.batch_size": recipe.dev.batch_size,
        "training.steps": training.steps,
        "training.epochs": training.epochs,
        "training.milestones": training.milestones,
        "training.log_every": training.log_every,
        "training.unroll": training.unroll,
        "training.accumulation": training.accumulation,
        "training.chunk": training.chunk,
        "training.max_skipped_steps": training.max_skipped_steps,
        "checkpoint.every": recipe.checkpoint.every,
        "checkpoint.keep": recipe.checkpoint.keep,
        "devices.fsdp": recipe.devices.fsdp,
    }
    for name, number in positive.items():
        _need(
            number is None or 0 < number <= _LARGEST_NUMBER,
            f"{name}: got {number}; a positive number of at most {_LARGEST_NUMBER:,} is needed",
        )
    _need(
        recipe.data.groups_per_batch % training.accumulation == 0,
        f"training.accumulation: got {training.accumulation}; a divisor of "
        f"data.groups_per_batch ({recipe.data.groups_per_batch}) is needed",
    )
    _check_loss(recipe.loss)
    _check_in_batch(recipe)
    _check_lora(recipe.lora, model)
    seeds = {"model": model.seed, "dev": recipe.dev.seed, "training": training.seed}
    for section, seed in seeds.items():
        _need(
            0 <= seed < 2**32, f"{section}.seed: got {seed}; a number from 0 to 2^32 - 1 is needed"
        )


def _check_lora(lora: LoraConfig, model: ModelConfig) -> None:
    if lora.rank is None:
        given = [field.name for field in fields(lora) if getattr(lora, field.name) != field.default]
        _need(not given, f"lora.{', lora.'.join(given)}: given without lora.rank, which is needed")
        return
    _need(
        0 < lora.rank <= _LARGEST_RANK,
        f"lora.rank: got {lora.rank}; 1 to {_LARGEST_RANK:,} is needed",
    )
    _need(
        model.init_from is not None,
        f"lora.rank: got {lora.rank} and model.family {model.family}; adapters change a trained "
        "model, which model.init_from names",
    )
    _need(
        lora.alpha is None or 0 < lora.alpha < math.inf,
        f"lora.alpha: got {lora.alpha}; a number above 0 is needed",
    )
    _need(0 <= lora.dropout < 1, f"lora.dropout: got {lora.dropout}; a rate in [0, 1) is needed")
    _need(lora.targets is None or len(lora.targets) > 0, "lora.targets: no name; null or some")


def _check_loss(loss: LossConfig) -> None:
    _need(
        0 < loss.temperature < math.inf,
        f"loss.temperature: got {loss.temperature}; a number above 0 is needed",
    )
    _need(
        loss.temperature == 1 or loss.name == "kl_distillation",
        f"loss.temperature: got {loss.temperature}; {loss.name} has no temperature, only "
        "kl_distillation has one",
    )
    _need(
        0 <= loss.contrastive_weight < math.inf,
        f"loss.contrastive_weight: got {loss.contrastive_weight}; a number of at least 0 is needed",
    )
    _need(
        not loss.contrastive_weight or targets_of(loss) is not None,
        f"loss.contrastive_weight: got {loss.contrastive_weight}; {loss.name} is InfoNCE itself, "
        "to which no more of it is added",
    )


def _check_in_batch(recipe: Recipe) -> None:
    data, loss = recipe.data, recipe.loss
    name = "loss.in_batch_negatives"
    if not loss.in_batch_negatives:
        _need(
            data.relevance_split is None,
            f"data.relevance_split: got {data.relevance_split}; it says what is no negative under "
            f"{name}, which is needed too",
        )
        return
    _need(
        data.relevance_split is None or data.collection is not None,
        f"data.relevance_split: got {data.relevance_split}; its qrels are in data.collection, "
        "which is needed too",
    )
    _need(
        targets_of(loss) is None,
        f"{name}: {loss.name} learns from a value of each pair, which documents of other groups "
        "have not; loss.name info_nce or localized_contrastive is needed",
    )
    _need(
        not data.packing,
        f"{name}: got true with data.packing, which puts whole pairs in rows, where documents are "
        "read apart from queries; one of them must be false",
    )
    together = data.groups_per_batch // recipe.training.accumulation
    _need(
        together > 1,
        f"{name}: got true where no groups meet: data.groups_per_batch {data.groups_per_batch} in "
        f"training.accumulation {recipe.training.accumulation} parts; at least 2 groups a part are "
        "needed",
    )


def _need(is_met: bool, message: str) -> None:
    if not is_met:
        raise InputError(message)
