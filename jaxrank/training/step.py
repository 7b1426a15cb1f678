"""One training step: a pure, jitted, donated function from (state, batch) to (state, metrics).

The module is split once, before training, into its structure and its parameters; inside the
jitted function both are merged again. So a call costs no walk through the module, and everything
that changes is in `TrainState`.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from jaxrank.models.module import RerankerModule
from jaxrank.shapes import Array, Float, Float32, Int, Key, PyTree
from jaxrank.training.losses import group_accuracy, info_nce

Metrics = dict[str, Array]
TrainStep = Callable[["TrainState", Mapping[str, Array]], tuple["TrainState", Metrics]]

BATCH_KEYS = ("input_ids", "mask", "token_type_ids", "candidate_mask")


class TrainState(NamedTuple):
    """All that a step reads and changes; a pytree."""

    step: Int[Array, ""]
    """Steps done so far."""
    parameters: PyTree
    """The module's parameters, float32: an nnx.State, whose annotation beartype cannot check."""
    optimizer_state: optax.OptState
    key: Key[Array, ""]
    """Where randomness comes from; it never changes: step n uses `fold_in(key, n)`."""


def init_state(
    module: RerankerModule, optimizer: optax.GradientTransformation, *, key: Key[Array, ""]
) -> tuple[nnx.GraphDef[RerankerModule], TrainState]:
    """Split a module into its structure and a state at step 0.

    The parameters are copied: a step gives its input's memory to its output, and `module` must
    outlive that.
    """
    graphdef, parameters = nnx.split(module, nnx.Param)
    parameters = jax.tree.map(jnp.copy, parameters)
    state = TrainState(jnp.zeros((), jnp.int32), parameters, optimizer.init(parameters), key)
    return graphdef, state


def make_train_step(
    graphdef: nnx.GraphDef[RerankerModule],
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    *,
    loss: Callable[..., Float32[Array, ""]] = info_nce,
) -> TrainStep:
    """Build the step for a module of structure `graphdef`.

    The step takes a `TrainState`, whose memory it reuses, and a batch: `input_ids`, `mask`,
    `token_type_ids` (Q, C, L) and `candidate_mask` (Q, C), False where a group has no candidate.
    It returns the next state and the metrics of this step, all float32 or int32 scalars: `loss`,
    `gradient_norm` (before clipping), `group_accuracy`, `learning_rate`, `pairs` and `tokens`
    (real ones, without padding).

    Args:
        optimizer, schedule: what `make_optimizer` returns.
        loss: called as `loss(scores (Q, C), where=candidate_mask)`.
    """

    def train_step(state: TrainState, batch: Mapping[str, Array]) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.key, state.step)

        def compute_loss(parameters: PyTree) -> tuple[Array, Array]:
            scores_QC = score_groups(nnx.merge(graphdef, parameters), batch, key=key)
            return loss(scores_QC, where=batch["candidate_mask"]), scores_QC

        value_and_gradients = jax.value_and_grad(compute_loss, has_aux=True)
        (loss_value, scores_QC), gradients = value_and_gradients(state.parameters)
        updates, optimizer_state = optimizer.update(
            gradients, state.optimizer_state, state.parameters
        )
        parameters = optax.apply_updates(state.parameters, updates)
        metrics = {
            "loss": loss_value,
            "gradient_norm": optax.tree.norm(gradients),
            "group_accuracy": group_accuracy(scores_QC, where=batch["candidate_mask"]),
            "learning_rate": jnp.asarray(schedule(state.step), jnp.float32),
            "pairs": jnp.sum(batch["candidate_mask"]),
            "tokens": jnp.sum(batch["mask"] & batch["candidate_mask"][:, :, None]),
        }
        return TrainState(state.step + 1, parameters, optimizer_state, state.key), metrics

    return jax.jit(train_step, donate_argnums=0)


def score_groups(
    module: RerankerModule, batch: Mapping[str, Array], *, key: Key[Array, ""] | None = None
) -> Float[Array, "Q C"]:
    """Scores of a batch's candidates, which pass through the module as Q*C sequences."""
    num_queries, num_candidates, length = batch["input_ids"].shape
    flat = (num_queries * num_candidates, length)
    scores = module(
        batch["input_ids"].reshape(flat),
        mask=batch["mask"].reshape(flat),
        token_type_ids=batch["token_type_ids"].reshape(flat),
        key=key,
    )
    return scores.reshape(num_queries, num_candidates)
