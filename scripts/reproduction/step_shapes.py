"""What a recipe's step is made of, by shapes alone: its state, and what its backward pass keeps.

No weights are read and nothing is compiled: the step is traced, which takes a second whatever the
model's size. What is kept for the backward pass is what `jax.vjp` hands from the one pass to the
other, in the dtype that the recipe computes in.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxrank.errors import InputError
from jaxrank.models.families import FAMILIES
from jaxrank.models.lora import add_lora, trained
from jaxrank.models.module import RerankerConfig, RerankerModule
from jaxrank.shapes import PyTree
from jaxrank.text.templates import TextConfig
from jaxrank.training.config import Recipe
from jaxrank.training.group_scores import score_groups
from jaxrank.training.optimizer import first_loss_scale, make_optimizer
from jaxrank.training.starting_model import check_length, override, random_architecture
from jaxrank.training.step import TrainState, init_state
from jaxrank.training_run.batch_size import longest_batch

_HUB_SUFFIXES = ("-uncased", "-hf", "-discriminator")


class StepBytes(NamedTuple):
    """Memory of a training step, in bytes."""

    state: int
    """Parameters and the optimizer's averages."""
    gradients: int
    kept: int
    """What the forward pass keeps for the backward pass, for the longest texts."""
    layer: int
    """What is there of one layer more while its backward pass is at work: all its results."""

    @property
    def total(self) -> int:
        """All that must be there at once."""
        return sum(self)


def find_architecture(recipe: Recipe) -> RerankerConfig:
    """The architecture of a recipe, by the name of its checkpoint on the hub; nothing is fetched.

    Raises:
        InputError: a checkpoint whose size is not known by its name, or texts that are longer than
            the model's positions.
    """
    model = recipe.model
    if model.init_from is not None:
        name = model.init_from.rpartition("/")[2].lower()
        for suffix in _HUB_SUFFIXES:
            name = name.removesuffix(suffix)
        families = [family.name for family in FAMILIES.values() if name in family.presets]
        if not families:
            raise InputError(
                f"model.init_from: the size of {model.init_from} is not known; give "
                "--model.family and --model.preset, and --model.init_from null"
            )
        model = replace(model, family=families[0], preset=name)
    config = override(random_architecture(model), model)
    text = recipe.text
    check_length(config, text.max_length or TextConfig.max_length, option="text.max_length")
    if text.evaluation_max_length is not None:
        check_length(config, text.evaluation_max_length, option="text.evaluation_max_length")
    return config


def step_state(recipe: Recipe, config: RerankerConfig) -> tuple[nnx.GraphDef, TrainState]:
    """The structure of the model and the shapes of the state that the recipe trains."""
    optimizer, _ = make_optimizer(replace(recipe.optimizer, warmup_steps=0), total_steps=1)
    dtype = compute_dtype(recipe)
    remat = recipe.training.remat

    def make() -> Any:
        module = RerankerModule(
            config,
            dtype=dtype,
            rngs=nnx.Rngs(params=0),
            # None would be the choice for this machine; on an accelerator all families take this.
            remat="projections" if remat == "auto" else remat,
        )
        if recipe.lora.rank is not None:
            add_lora(module, recipe.lora, seed=0)
        return init_state(
            module,
            optimizer,
            key=jax.random.key(0),
            trained=nnx.Param if recipe.lora.rank is None else trained,
            parameter_dtype=recipe.model.parameter_dtype,
            loss_scale=first_loss_scale(recipe.optimizer, dtype),
        )

    return jax.eval_shape(make)


def compute_dtype(recipe: Recipe) -> np.dtype:
    """What the model computes in on an accelerator."""
    name = recipe.model.dtype
    return jnp.dtype("bfloat16" if name == "auto" else name)


def measure_shapes(recipe: Recipe, config: RerankerConfig) -> StepBytes:
    """Memory of a step of the recipe with `training.accumulation`, every text of full length."""
    graphdef, state = step_state(recipe, config)
    gradients = measure_bytes(state.parameters)
    if recipe.training.accumulation > 1:  # those of a part, and their sums in float32
        gradients += sum(4 * x.size for x in jax.tree.leaves(state.parameters))
    kept = _kept_bytes(recipe, graphdef, state)
    plain = replace(recipe, training=replace(recipe.training, remat="none"))
    fewer = replace(config.backbone, num_layers=config.backbone.num_layers - 1)
    layer = _kept_bytes(plain, *step_state(plain, config)) - _kept_bytes(
        plain, *step_state(plain, replace(config, backbone=fewer))
    )
    return StepBytes(measure_bytes(state), gradients, kept, layer)


def _kept_bytes(recipe: Recipe, graphdef: nnx.GraphDef, state: TrainState) -> int:
    """What the backward pass of a part reads beside parameters and batch."""
    batch = longest_batch(recipe, max_length=recipe.text.max_length or TextConfig.max_length)
    if recipe.training.accumulation > 1:
        batch = {name: array[0] for name, array in batch.items()}

    def forward(parameters: PyTree, frozen: PyTree, batch: PyTree) -> PyTree:
        def scores(parameters: PyTree) -> jax.Array:
            module = nnx.merge(graphdef, parameters, frozen)
            return score_groups(module, batch, key=jax.random.key(0), chunk=recipe.training.chunk)

        return jax.vjp(scores, parameters)[1]

    jaxpr = jax.make_jaxpr(forward)(state.parameters, state.frozen, batch).jaxpr
    inputs = {id(variable) for variable in jaxpr.invars}
    results = {id(v): v.aval for v in jaxpr.outvars if id(v) not in inputs}
    return sum(value.size * value.dtype.itemsize for value in results.values())


def measure_bytes(tree: PyTree) -> int:
    """Bytes of all arrays of a tree, or of their shapes."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
