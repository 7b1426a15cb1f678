"""How large a part of a batch may be, found by compiling the step and running nothing."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from jaxrank.data.packing import round_up_rows, texts_per_row
from jaxrank.errors import InputError
from jaxrank.shapes import Array, PyTree
from jaxrank.training.config import Recipe
from jaxrank.training.devices import put_batch, state_shardings
from jaxrank.training.loop import put_on_device
from jaxrank.training.losses import targets_of
from jaxrank.training.memory import (
    StepMemory,
    find_accumulation,
    in_gib,
    measure_step,
    read_memory,
)
from jaxrank.training.optimizer import make_optimizer
from jaxrank.training_run.in_batch import SideLengths
from jaxrank.training_run.start import Start
from jaxrank.training_run.steps import first_state, recipe_step


def fit_batch(
    recipe: Recipe, start: Start, mesh: Mesh | None, *, sides: SideLengths | None = None
) -> tuple[Recipe, str]:
    """The recipe with the smallest `training.accumulation` that fits the memory, and a note.

    Groups of the batch's longest possible sequences count. Each number that is tried compiles the
    step once.

    Args:
        sides: with in-batch negatives, the longest sides of a pair. Each part keeps two groups at
            least then.

    Raises:
        InputError: nothing says what memory there is, or not even the smallest parts fit.
    """
    memory = read_memory()
    if memory is None:
        raise InputError(
            "training.find_batch_size: this device does not say what memory it has; "
            "set training.accumulation"
        )
    free = memory.limit - memory.used
    if jax.process_count() > 1:  # All must choose alike.
        free = int(multihost_utils.process_allgather(np.array(free, np.int64)).min())
    devices = 1 if mesh is None else mesh.size
    groups = recipe.data.groups_per_batch
    candidates = [
        parts
        for parts in range(recipe.training.accumulation, groups + 1)
        if groups % (parts * devices) == 0 and (sides is None or parts < groups)
    ]
    parts, needed = find_accumulation(
        lambda parts: _measure(_with_accumulation(recipe, parts), start, mesh, sides),
        candidates,
        free=free,
    )
    count = "all at once" if parts == 1 else f"in {parts} parts, one after the other"
    note = (
        f"training.find_batch_size: the {groups} groups of a step {count} "
        f"(training.accumulation {parts}): {in_gib(needed.total)} of {in_gib(free)} of memory"
    )
    if sides is not None and parts > 1:
        note += f"; a query meets the documents of {groups // parts} groups"
    return _with_accumulation(recipe, parts), note


def use_earlier_batch(recipe: Recipe, resolved: Mapping[str, Any]) -> Recipe:
    """The recipe with the accumulation that the run which goes on was begun with."""
    return _with_accumulation(
        recipe, resolved.get("training.accumulation", recipe.training.accumulation)
    )


def longest_batch(
    recipe: Recipe, *, max_length: int, sides: SideLengths | None = None
) -> dict[str, np.ndarray]:
    """A batch of this process of the largest shape that can occur; what it says means nothing.

    With `sides` documents and queries are apart. Packed, its rows hold one pair each. That is more
    than will occur, as how well pairs pack is not known before they are there.
    """
    parts, candidates = recipe.training.accumulation, 1 + recipe.data.negatives
    groups = recipe.data.groups_per_batch // parts // jax.process_count()
    lead = () if parts == 1 else (parts,)
    batch: dict[str, np.ndarray] = {
        "candidate_mask": np.ones((*lead, groups, candidates), np.bool_)
    }
    if sides is not None:
        together = recipe.data.groups_per_batch // parts
        shapes = {"document": (groups, candidates, sides.document), "query": (groups, sides.query)}
        batch = {"candidate_mask": np.ones((*lead, groups, together * candidates), np.bool_)}
        for side, shape in shapes.items():
            batch[f"{side}_ids"] = np.zeros((*lead, *shape), np.int32)
            batch[f"{side}_mask"] = np.ones((*lead, *shape), np.bool_)
        return batch
    if targets_of(recipe.loss) is not None:
        batch["targets"] = np.zeros((*lead, groups, candidates), np.float32)
    if not recipe.data.packing:
        shape = (*lead, groups, candidates, max_length)
        batch["mask"] = np.ones(shape, np.bool_)
        return batch | {name: np.zeros(shape, np.int32) for name in ("input_ids", "token_type_ids")}
    rows = round_up_rows(groups * candidates, jax.local_device_count())
    for name in ("input_ids", "token_type_ids", "segment_ids", "positions"):
        batch[name] = np.zeros((*lead, rows, max_length), np.int32)
    for name in ("first", "last"):
        batch[name] = np.zeros((*lead, rows, texts_per_row(max_length)), np.int32)
    return batch | {"places": np.zeros((*lead, groups, candidates), np.int32)}


def batch_putter(
    recipe: Recipe, mesh: Mesh | None
) -> Callable[[Mapping[str, np.ndarray]], Mapping[str, Array]]:
    """Puts a batch of this process on the devices of the run."""
    if mesh is None:
        return put_on_device
    return partial(put_batch, mesh=mesh, accumulation=recipe.training.accumulation)


def _measure(
    recipe: Recipe, start: Start, mesh: Mesh | None, sides: SideLengths | None
) -> StepMemory | None:
    """Memory of the recipe's step on its longest batch."""
    # Neither the length of the run nor that of the warm-up takes memory.
    config = replace(recipe.optimizer, warmup_steps=0, warmup_fraction=None)
    optimizer, schedule = make_optimizer(config, total_steps=1)
    shardings: list[PyTree] = []

    def make_state() -> Any:
        graphdef, state = first_state(recipe, start, optimizer)
        if mesh is not None:
            shardings.append(state_shardings(state, mesh))
        return graphdef, state

    graphdef, state = jax.eval_shape(make_state)
    if mesh is not None:
        state = jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            state,
            shardings[0],
        )
    sharding = shardings[0] if shardings else None
    train_step = recipe_step(recipe, graphdef, optimizer, schedule, state_sharding=sharding)
    batch = longest_batch(recipe, max_length=start.text.max_length, sides=sides)
    return measure_step(train_step, state, batch_putter(recipe, mesh)(batch))


def _with_accumulation(recipe: Recipe, parts: int) -> Recipe:
    return replace(recipe, training=replace(recipe.training, accumulation=parts))
