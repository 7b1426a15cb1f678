"""What a plan's training will be: its options checked and its cost estimated before anything."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from jaxrank.errors import InputError
from jaxrank.options import parse
from jaxrank.training.config import Recipe
from jaxrank.training.recipe_checks import check_recipe
from jaxrank.yaml_layers import find_required, read_layer
from scripts.reproduction.cost import Cost, estimate
from scripts.reproduction.steps import Step

# Questions of the official sets that are judged, so reranked.
_NUM_QUERIES = {
    "msmarco-document": {"dev": 5_193, "dl19": 43, "dl20": 45},
    "msmarco-passage": {"dev": 6_980, "dl19": 43, "dl20": 54},
}


def open_options(layers: Sequence[Path], train_options: Sequence[str]) -> list[str]:
    """A line about each option that the recipe leaves to the user and the user has not given."""
    given = [word.removeprefix("--").partition("=")[0] for word in train_options]
    # The plan gives it.
    given = [name for name in given if name] + ["training.output"]
    contents = [(path.name, read_layer(str(path))) for path in layers]
    return [
        f"a value of your choice, behind the options of this command: -- --{item.key} VALUE"
        f"{f' ({item.reason})' if item.reason else ''}"
        for item in find_required(contents, given)
    ]


def read_recipe(step: Step) -> Recipe:
    """The resolved recipe of a training step.

    Raises:
        InputError: an option that the training would refuse after hours of other steps.
    """
    recipe = parse(Recipe, "jaxrank.train", step.arguments)
    check_recipe(recipe)
    return recipe


def describe_cost(recipe: Recipe, *, layout: str | None, sets: Sequence[str], depth: int) -> str:
    """The estimate in words; of groups that are not the paper's, none."""
    if layout is None:
        return (
            "cost: not estimated before the groups are there; then: python -m "
            "scripts.reproduction.cost --groups N and the training's --config options"
        )
    try:
        cost = estimate(recipe)
    except InputError as error:
        return f"cost: not estimated ({error})"
    lines = [
        f"cost of training, estimated for one A100 of 80 GB: {cost.steps:,} steps, {cost}",
        _describe_reranking(cost, recipe, layout, sets, depth),
    ]
    return "\n".join(line for line in lines if line)


def describe_disk(output: Path) -> str:
    """How much is free where everything goes."""
    existing = next(path for path in (output, *output.parents) if path.exists())
    return f"free where the output goes: {shutil.disk_usage(existing).free / 2**30:,.0f} GiB"


def _describe_reranking(
    cost: Cost, recipe: Recipe, layout: str, sets: Sequence[str], depth: int
) -> str:
    """A pair takes a third of a training pair's arithmetic, which has the backward pass too."""
    numbers = _NUM_QUERIES[layout]
    pairs = sum(numbers.get(name, 0) for name in sets) * depth
    trained = cost.steps * recipe.data.groups_per_batch * (1 + recipe.data.negatives)
    if not pairs:
        return ""
    hours = cost.hours * pairs / (3 * trained)
    return f"cost of reranking {pairs:,} pairs, as fast as in training: {hours:.1f} h"
