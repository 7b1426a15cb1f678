"""The state and the step that a recipe asks for, to be run or only to be measured."""

import jax
import optax
from flax import nnx

from jaxrank.models.module import RerankerModule
from jaxrank.shapes import PyTree
from jaxrank.training.config import Recipe
from jaxrank.training.losses import make_loss
from jaxrank.training.optimizer import first_loss_scale
from jaxrank.training.step import TrainState, TrainStep, init_state, make_train_step
from jaxrank.training_run.start import Start


def first_state(
    recipe: Recipe, start: Start, optimizer: optax.GradientTransformation, *, release: bool = False
) -> tuple[nnx.GraphDef[RerankerModule], TrainState]:
    """The structure of the start's module, and the state at step 0; `release` as in init_state."""
    return init_state(
        start.module,
        optimizer,
        key=jax.random.key(recipe.training.seed),
        trained=start.trained,
        parameter_dtype=recipe.model.parameter_dtype,
        loss_scale=first_loss_scale(recipe.optimizer, start.dtype),
        release=release,
    )


def recipe_step(
    recipe: Recipe,
    graphdef: nnx.GraphDef[RerankerModule],
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    *,
    state_sharding: PyTree | None,
) -> TrainStep:
    """The training step with the recipe's loss, parts and chunks."""
    return make_train_step(
        graphdef,
        optimizer,
        schedule,
        loss=make_loss(recipe.loss),
        accumulation=recipe.training.accumulation,
        chunk=recipe.training.chunk,
        state_sharding=state_sharding,
    )
