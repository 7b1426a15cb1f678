"""What a training run is made of: loaded, and checked to fit one another."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import optax
from jax.sharding import Mesh

from jaxrank.data.collection import Collection
from jaxrank.text.tokenize import PairTokenizer
from jaxrank.training.config import Recipe, count_steps
from jaxrank.training.dev import DevSample
from jaxrank.training.devices import find_mesh
from jaxrank.training.loop import LoopConfig, spread_milestones
from jaxrank.training.optimizer import make_optimizer
from jaxrank.training.text_options import text_options_named
from jaxrank.training_run.batch_size import fit_batch, use_earlier_batch
from jaxrank.training_run.data import RunBatches, load_dev_sample, load_groups, make_batches
from jaxrank.training_run.in_batch import SideLengths, check_in_batch
from jaxrank.training_run.start import Start, load_start


class Prepared(NamedTuple):
    """All that a run needs, loaded and checked; nothing is written yet."""

    recipe: Recipe
    start: Start
    pair_tokenizer: PairTokenizer
    evaluation_tokenizer: PairTokenizer
    data: RunBatches
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    loop: LoopConfig
    sample: DevSample | None
    mesh: Mesh | None
    notes: tuple[str, ...]
    sides: SideLengths | None = None
    """With in-batch negatives."""


def prepare(
    recipe: Recipe,
    collection: Collection | None,
    mesh: Mesh | None,
    earlier: Mapping[str, Any] | None,
    *,
    progress: bool,
) -> Prepared:
    """Load model and data and check that they fit one another.

    Args:
        earlier: what the options of the run that goes on came to.
    """
    start = load_start(recipe)
    sides = check_in_batch(recipe, start)
    notes = start.notes
    if recipe.training.find_batch_size and earlier is not None:
        recipe = use_earlier_batch(recipe, earlier)
    elif recipe.training.find_batch_size:
        recipe, note = fit_batch(recipe, start, mesh, sides=sides)
        notes = (*notes, note)
    if recipe.training.find_batch_size:
        # What was found must suit these devices, which may be others than it was found on.
        find_mesh(
            recipe.devices.fsdp,
            groups_per_batch=recipe.data.groups_per_batch,
            accumulation=recipe.training.accumulation,
        )
    with text_options_named():
        pair_tokenizer = PairTokenizer(start.tokenizer, start.text)
    with text_options_named(is_evaluation=True):
        evaluation_tokenizer = PairTokenizer(start.tokenizer, start.evaluation_text)
    groups = load_groups(recipe, collection)
    total_steps = count_steps(
        recipe.training,
        num_groups=len(groups.groups),
        groups_per_batch=recipe.data.groups_per_batch,
    )
    loop = LoopConfig(
        total_steps=total_steps,
        milestones=spread_milestones(total_steps, recipe.training.milestones),
        log_every=recipe.training.log_every,
        checkpoint_every=recipe.checkpoint.every,
        max_skipped_steps=recipe.training.max_skipped_steps,
    )
    optimizer, schedule = make_optimizer(recipe.optimizer, total_steps)
    sample, dev_notes = load_dev_sample(recipe, collection, evaluation_tokenizer)
    # Last, since it may take long: what else cannot be used has been said by then.
    data = make_batches(recipe, groups, collection, pair_tokenizer, progress=progress)
    return Prepared(
        recipe,
        start,
        pair_tokenizer,
        evaluation_tokenizer,
        data,
        optimizer,
        schedule,
        loop,
        sample,
        mesh,
        (*notes, *data.notes, *dev_notes),
        sides,
    )
