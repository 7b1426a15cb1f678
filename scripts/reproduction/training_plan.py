"""What a plan's training will be: its options checked and its cost estimated before anything."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jaxrank.errors import InputError
from jaxrank.evaluation.tracks import TRACKS
from jaxrank.options import parse
from jaxrank.training.config import Recipe
from jaxrank.training.recipe_checks import check_recipe
from jaxrank.yaml_layers import find_required, read_layer
from scripts.reproduction.cost import Cost, estimate
from scripts.reproduction.official_files import NUM_TOPICS
from scripts.reproduction.papers import TRACKS_OF_SETS
from scripts.reproduction.plan import FirstStageName
from scripts.reproduction.steps import Step

# Options that an estimate of the cost does not depend on, with a value that can be used.
_COSTS_NOTHING = {"optimizer.learning_rate": "1e-5"}


class OpenOption(NamedTuple):
    """An option that a recipe leaves to the user."""

    key: str
    """Dotted, as on the command line."""
    reason: str
    """May be empty."""

    def __str__(self) -> str:
        reason = f" ({self.reason})" if self.reason else ""
        return (
            f"a value of your choice, behind the options of this command: -- --{self.key} VALUE"
            f"{reason}"
        )


def open_options(layers: Sequence[Path], train_options: Sequence[str]) -> list[OpenOption]:
    """Each option that the recipe leaves to the user and the user has not given."""
    given = [word.removeprefix("--").partition("=")[0] for word in train_options]
    # The plan gives it.
    given = [name for name in given if name] + ["training.output"]
    contents = [(path.name, read_layer(str(path))) for path in layers]
    return [OpenOption(item.key, item.reason) for item in find_required(contents, given)]


def read_recipe(step: Step, still_open: Sequence[OpenOption]) -> Recipe | None:
    """The recipe of a training step, to estimate its cost; None if what is open changes that.

    Raises:
        InputError: an option that the training would refuse after hours of other steps.
    """
    if any(option.key not in _COSTS_NOTHING for option in still_open):
        return None
    given = [f"--{option.key}={_COSTS_NOTHING[option.key]}" for option in still_open]
    recipe = parse(Recipe, "jaxrank.train", [*step.arguments, *given])
    check_recipe(recipe)
    return recipe


def count_questions(sets: Sequence[str], layout: str, *, first_stage: FirstStageName) -> int:
    """Questions of official sets whose candidates are reranked.

    We search for those that are judged; the official runs have all topics of a DL track.
    """
    tracks = TRACKS_OF_SETS[layout]
    has_all = first_stage == "official"
    return sum(
        NUM_TOPICS if has_all and name.startswith("dl") else TRACKS[tracks[name]].num_queries or 0
        for name in sets
        if name in tracks
    )


def estimate_training(recipe: Recipe, *, is_own: bool) -> Cost | str:
    """What the training costs, with the paper's number of groups; or why that is not known."""
    if is_own:
        return (
            "not estimated before the groups are there; then: python -m scripts.reproduction.cost "
            "--groups N and the training's --config options"
        )
    try:
        return estimate(recipe)
    except InputError as error:
        return f"not estimated ({error})"


def describe_cost(cost: Cost | str, recipe: Recipe, *, num_questions: int, depth: int) -> str:
    """The estimate in words; a pair that is reranked takes a third of a training pair's work.

    The backward pass is twice the forward pass, which is all that reranking has.
    """
    if isinstance(cost, str):
        return f"cost: {cost}"
    lines = [
        "cost of training, estimated for one A100 of 80 GB, at the paper's "
        f"{cost.groups:,} groups: {cost.steps:,} steps, {cost}"
    ]
    if pairs := num_questions * depth:
        trained = cost.steps * recipe.data.groups_per_batch * (1 + recipe.data.negatives)
        hours = cost.hours * pairs / (3 * trained)
        lines.append(f"cost of reranking {pairs:,} pairs, as fast as in training: {hours:.1f} h")
    return "\n".join(lines)
