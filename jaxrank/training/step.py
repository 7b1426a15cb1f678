"""One training step: a pure, jitted, donated function from (state, batch) to (state, metrics).

The module is split once, before training, into its structure and its parameters; inside the
jitted function both are merged again. So a call costs no walk through the module, and everything
that changes is in `TrainState`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.typing import DTypeLike

from jaxrank.models.module import RerankerModule
from jaxrank.shapes import Array, Bool, Float32, Int, Key, PyTree
from jaxrank.training.group_scores import score_groups
from jaxrank.training.loss_scale import LossScale, init_loss_scale, update_loss_scale
from jaxrank.training.losses import Loss, LossConfig, group_accuracy, make_loss
from jaxrank.training.shared_states import count_tokens, has_shared_states, score_all_pairs

Metrics = dict[str, Array]
TrainStep = Callable[["TrainState", Mapping[str, Array]], tuple["TrainState", Metrics]]

BATCH_KEYS = (
    "input_ids", "mask", "token_type_ids", "candidate_mask", "targets",
    "segment_ids", "positions", "first", "last", "places",
    "document_ids", "document_mask", "query_ids", "query_mask",
)  # fmt: skip
"""What a step reads of a batch; see `make_train_step` for which of them there are."""


class TrainState(NamedTuple):
    """All that a step reads and changes; a pytree."""

    step: Int[Array, ""]
    """Steps done so far."""
    parameters: PyTree
    """The parameters that are trained: an nnx.State, whose annotation beartype cannot check."""
    optimizer_state: optax.OptState
    key: Key[Array, ""]
    """Where randomness comes from; it never changes: step n uses `fold_in(key, n)`."""
    frozen: PyTree = ()
    """The parameters that are not trained; an nnx.State, or nothing."""
    loss_scale: LossScale | None = None
    """For float16."""
    skipped: Int[Array, ""] | int = 0
    """Steps in a row that changed nothing, since loss or gradient was not finite."""


def init_state(
    module: RerankerModule,
    optimizer: optax.GradientTransformation,
    *,
    key: Key[Array, ""],
    trained: Any = nnx.Param,
    parameter_dtype: DTypeLike = jnp.float32,
    loss_scale: float | None = None,
    release: bool = False,
) -> tuple[nnx.GraphDef[RerankerModule], TrainState]:
    """Split a module into its structure and a state at step 0.

    The parameters are copied: a step gives its input's memory to its output, and `module` must
    outlive that. With `release` they are not, and `module` is left with their shapes alone.

    Args:
        optimizer: what `make_optimizer` returns.
        key: where dropout comes from.
        trained: an NNX filter; parameters that it does not match are `frozen`.
        parameter_dtype: what parameters, and so the optimizer's averages, are kept in.
        loss_scale: the first scale of the loss; None: no scaling.
    """
    graphdef, *states = nnx.split(module, trained, ...)
    parameters, frozen = jax.tree.map(
        lambda x: jnp.array(x, parameter_dtype, copy=not release), states
    )
    if release:
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), states)
        nnx.update(module, *shapes)
    return graphdef, TrainState(
        step=jnp.zeros((), jnp.int32),
        parameters=parameters,
        optimizer_state=optimizer.init(parameters),
        key=key,
        frozen=frozen,
        loss_scale=None if loss_scale is None else init_loss_scale(loss_scale),
        skipped=jnp.zeros((), jnp.int32),
    )


def make_train_step(
    graphdef: nnx.GraphDef[RerankerModule],
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    *,
    loss: Loss | None = None,
    accumulation: int = 1,
    chunk: int | None = None,
    state_sharding: PyTree | None = None,
) -> TrainStep:
    """Build the step for a module of structure `graphdef`.

    The step takes a `TrainState`, whose memory it reuses, and a batch of Q groups of C candidates:

        candidate_mask              bool (Q, C), False where a group has no candidate
        targets                     float32 (Q, C), for losses that have them: labels or a teacher's
                                    scores
        padded:
        input_ids, token_type_ids   int32 (Q, C, L), a row a pair
        mask                        bool (Q, C, L)
        packed, several pairs in a row:
        input_ids, token_type_ids   int32 (R, L)
        segment_ids, positions      int32 (R, L), see Packing
        first, last                 int32 (R, T), see Packing
        places                      int32 (Q, C), place r * T + t of each pair in the rows; 0 where
                                    there is no candidate
        shared, documents apart from the queries, which all meet all of them:
        document_ids                int32 (Q, C, L)
        document_mask               bool (Q, C, L)
        query_ids                   int32 (Q, K)
        query_mask                  bool (Q, K)
        candidate_mask              bool (Q, Q * C): of each query its own group's documents, then
                                    those of the groups behind it, cyclically; False also where a
                                    document does not count for a query

    With `accumulation` above 1 each array has one axis more in front, of that many parts, which are
    computed one after the other; the gradient is that of the whole. Gradients, their sums and the
    optimizer's arithmetic are float32, whatever parameters are kept in.

    A step whose loss or gradient is not finite changes nothing but its own number, the count
    `skipped` and the loss scale. The learning rate goes by the step's number, skipped ones
    included; the optimizer's averages go by the updates that were made.

    It returns the next state and the metrics of this step, all float32 or int32 scalars: `loss`,
    `gradient_norm` (before clipping), `group_accuracy`, `score_spread` (standard deviation of a
    query's scores), `learning_rate`, `pairs` (that count), `tokens` (real ones, of shared documents
    once), `padded_tokens` (all that are computed), `skipped` (steps in a row up to this one) and,
    under a loss scale, `loss_scale`. Loss, accuracy and spread are over all documents that a query
    meets: shared ones are Q * C, so they do not compare with those of its own group's C.

    Args:
        optimizer, schedule: what `make_optimizer` returns.
        loss: called as `loss(scores (Q, C), targets, where=candidate_mask)`, a mean over groups
            that have their positive; None: InfoNCE.
        accumulation: parts of a batch.
        chunk: sequences, packed rows or shared documents of a part that are scored at a time; see
            `score_groups` and `score_all_pairs`.
        state_sharding: how the state lies on many devices, see `devices.state_shardings`.
    """
    loss = make_loss(LossConfig()) if loss is None else loss

    def part_of_loss(
        parameters: PyTree,
        frozen: PyTree,
        part: Mapping[str, Array],
        weight: Array,
        scale: Array,
        key: Array,
    ) -> tuple[Array, Metrics]:
        """A part's share of the loss, scaled, and of the metrics."""
        is_shared = has_shared_states(part)
        if chunk is not None or is_shared:
            # So that the gradients of chunks, or of queries, add up in float32.
            parameters = _widen(parameters)
        module = nnx.merge(graphdef, parameters, frozen)
        where_QC = part["candidate_mask"]
        score = score_all_pairs if is_shared else score_groups
        scores_QC = score(module, part, key=key, chunk=chunk)
        share = weight * loss(scores_QC, part.get("targets"), where=where_QC)
        shares = {
            "loss": share,
            "group_accuracy": weight * group_accuracy(scores_QC, where=where_QC),
            "score_spread": weight * _spread(scores_QC, where_QC),
        }
        return scale * share, shares

    def train_step(state: TrainState, batch: Mapping[str, Array]) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.key, state.step)
        loss_scale = state.loss_scale
        scale = jnp.float32(1.0) if loss_scale is None else loss_scale.scale

        def differentiate(part: Mapping[str, Array], weight: Array, key: Array) -> Any:
            gradients, shares = jax.grad(part_of_loss, has_aux=True)(
                state.parameters, state.frozen, part, weight, scale, key
            )
            return gradients, shares

        if accumulation == 1:
            scaled_gradients, shares = differentiate(batch, jnp.float32(1.0), key)
        else:
            scaled_gradients, shares = _accumulate(differentiate, batch, key)

        def unscale() -> PyTree:
            # Multiplied, since XLA would keep quotients in an array instead of computing them anew.
            return jax.tree.map(lambda g: g.astype(jnp.float32) * (1 / scale), scaled_gradients)

        gradient_norm = optax.tree.norm(unscale())
        is_finite = jnp.isfinite(shares["loss"]) & jnp.isfinite(gradient_norm)
        learning_rate = jnp.asarray(schedule(state.step), jnp.float32)

        def update() -> tuple[PyTree, PyTree]:
            directions, optimizer_state = optimizer.update(
                unscale(), state.optimizer_state, state.parameters
            )
            parameters = jax.tree.map(
                lambda p, d: (p - learning_rate * d).astype(p.dtype), state.parameters, directions
            )
            return parameters, optimizer_state

        # Not `where`: there XLA keeps old and new side by side, on a CPU one more copy of
        # parameters and averages; a condition updates them in place.
        parameters, optimizer_state = jax.lax.cond(
            is_finite, update, lambda: (state.parameters, state.optimizer_state)
        )
        skipped = jnp.where(is_finite, 0, state.skipped + 1)
        metrics = {
            **shares,
            "gradient_norm": gradient_norm,
            "learning_rate": learning_rate,
            "skipped": skipped,
            **_count(batch),
        }
        if loss_scale is not None:
            metrics["loss_scale"] = loss_scale.scale
            loss_scale = update_loss_scale(loss_scale, is_finite=is_finite)
        next_state = TrainState(
            step=state.step + 1,
            parameters=parameters,
            optimizer_state=optimizer_state,
            key=state.key,
            frozen=state.frozen,
            loss_scale=loss_scale,
            skipped=skipped,
        )
        return next_state, metrics

    if state_sharding is None:
        return jax.jit(train_step, donate_argnums=0)
    # As the state came, so that its memory can be used again; every process reads the metrics.
    shardings = (state_sharding, state_sharding.step)
    return jax.jit(train_step, donate_argnums=0, out_shardings=shardings)


def _accumulate(
    differentiate: Callable[..., Any], batch: Mapping[str, Array], key: Key[Array, ""]
) -> Any:
    """The sum over a batch's parts, each weighted by its share of the groups, in float32."""
    groups = batch["candidate_mask"][:, :, 0].sum(axis=1)
    weights = groups / jnp.maximum(groups.sum(), 1)

    def add(total: Any, step: Any) -> tuple[Any, None]:
        part, weight, number = step
        result = differentiate(part, weight, jax.random.fold_in(key, number))
        return jax.tree.map(lambda a, b: a + b.astype(jnp.float32), total, result), None

    steps = (dict(batch), weights, jnp.arange(len(weights)))
    shapes = jax.eval_shape(differentiate, *jax.tree.map(lambda x: x[0], steps[:2]), key)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), shapes)
    return jax.lax.scan(add, zeros, steps)[0]


def _spread(scores: Float32[Array, "Q C"], where: Bool[Array, "Q C"]) -> Float32[Array, ""]:
    """Standard deviation of the scores inside a group, the mean over groups with a positive."""
    is_group = where[:, 0]
    # Of nothing at all there is no deviation, so a group without candidates takes all places.
    spreads = jnp.std(scores, axis=1, where=where | ~is_group[:, None])
    return jnp.sum(spreads, where=is_group) / jnp.maximum(jnp.sum(is_group), 1)


def _widen(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: x.astype(jnp.float32), tree)


def _count(batch: Mapping[str, Array]) -> Metrics:
    """Pairs, their tokens, without padding and with it."""
    is_pair = batch["candidate_mask"]
    if has_shared_states(batch):
        tokens, padded_tokens = count_tokens(batch)
    elif "segment_ids" in batch:
        tokens, padded_tokens = jnp.sum(batch["segment_ids"] > 0), batch["input_ids"].size
    else:
        tokens, padded_tokens = jnp.sum(batch["mask"] & is_pair[..., None]), batch["mask"].size
    return {"pairs": jnp.sum(is_pair), "tokens": tokens, "padded_tokens": jnp.int32(padded_tokens)}
