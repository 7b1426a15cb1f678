"""Losses over the scores of groups: pure functions of arrays (Q, C), computed in float32.

Every loss is a mean over the groups that have their positive, candidate 0; `where` says which
candidates exist. A group with nothing to learn from gives 0, and always a finite gradient.

| Name | Learns from | Source |
|---|---|---|
| info_nce | the place of the positive | van den Oord et al. 2018, arXiv 1807.03748 |
| localized_contrastive | the same | Gao et al. 2021, arXiv 2101.08751 |
| listwise_softmax | labels | Bruch et al. 2019, ICTIR |
| ranknet | labels | Burges et al. 2005, ICML |
| margin_mse | teacher scores | Hofstätter et al. 2020, arXiv 2010.02666 |
| kl_distillation | teacher scores | Hinton et al. 2015, arXiv 1503.02531 |

`localized_contrastive` is InfoNCE under the name that reranking papers use. What is localized in
localized contrastive estimation is not the formula but where negatives come from: the top of the
first stage whose results will be reranked. That is done by `python -m jaxrank.mine`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from jaxrank.shapes import Array, Bool, Float, Float32

LossName = Literal[
    "info_nce",
    "localized_contrastive",
    "listwise_softmax",
    "ranknet",
    "margin_mse",
    "kl_distillation",
]
Loss = Callable[..., Float32[Array, ""]]
"""Called as `loss(scores (Q, C), targets (Q, C) or None, where=(Q, C))`: the mean over groups."""


@dataclass(frozen=True)
class LossConfig:
    """What is minimised over the scores of a group."""

    name: LossName = "info_nce"
    """info_nce, or localized_contrastive, which is its name in the literature where negatives come
    from the first stage; listwise_softmax and ranknet learn from labels in the groups file (1 for
    the positive and 0 for the others where it has none); margin_mse and kl_distillation from a
    teacher's scores in it, which `python -m jaxrank.rerank --groups` writes."""

    temperature: float = 1.0
    """What the scores of model and teacher are divided by, in kl_distillation. Above 1, differences
    among the documents that the teacher finds poor count for more."""

    contrastive_weight: float = 0.0
    """Weight of InfoNCE that is added to another loss, as is usual in distillation."""

    in_batch_negatives: bool = False
    """Score each query with the documents of all groups of its part of the batch, not of its own
    group alone: those of the others are more negatives, but for what `data.relevance_split` knows
    to be relevant. A document is read once and its state shared by all queries, so a step runs the
    queries' tokens once more for each group of a part and no document's again. For mamba and
    mamba2, templates that put the document first, info_nce and localized_contrastive."""


def make_loss(config: LossConfig) -> Loss:
    """The loss that a recipe names, with its share of InfoNCE."""
    target_name = targets_of(config)
    with_targets: dict[str, Loss] = {
        "listwise_softmax": listwise_softmax,
        "ranknet": ranknet,
        "margin_mse": margin_mse,
        "kl_distillation": partial(kl_distillation, temperature=config.temperature),
    }

    def loss(
        scores: Float[Array, "Q C"],
        targets: Float[Array, "Q C"] | None = None,
        *,
        where: Bool[Array, "Q C"] | None = None,
    ) -> Float32[Array, ""]:
        if target_name is None:
            return info_nce(scores, where=where)
        assert targets is not None, f"{config.name} needs a batch with {target_name}"
        value = with_targets[config.name](scores, targets, where=where)
        if config.contrastive_weight:
            value += config.contrastive_weight * info_nce(scores, where=where)
        return value

    return loss


def targets_of(config: LossConfig) -> Literal["labels", "teacher_scores"] | None:
    """What a batch must hold as `targets` for the loss that a recipe names."""
    if config.name in ("listwise_softmax", "ranknet"):
        return "labels"
    return "teacher_scores" if config.name in ("margin_mse", "kl_distillation") else None


def info_nce(
    scores: Float[Array, "Q C"], *, where: Bool[Array, "Q C"] | None = None
) -> Float32[Array, ""]:
    """InfoNCE: how surprised a softmax over each group is by its positive, candidate 0.

        loss = 1/Q  sum_q  -log( exp(s_q0) / sum_c exp(s_qc) )

    This is RankMamba's equation 6 (arXiv 2403.18276) with the -log that its print lost.

    >>> import jax.numpy as jnp
    >>> print(f"{info_nce(jnp.array([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])):.4f}")
    0.6691
    >>> print(f"{info_nce(jnp.zeros((1, 3)), where=jnp.array([[True, True, False]])):.4f}")
    0.6931

    Args:
        scores: one score a candidate; computed in float32 whatever their dtype.
        where: True for candidates that exist, in groups of different size. A group without its
            positive does not count, neither in the sum nor in Q.

    Returns:
        The mean over groups; 0 where there is none.
    """
    where = _all_if_none(scores, where)
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(
        scores.astype(jnp.float32), jnp.zeros(len(scores), jnp.int32), where=where
    )
    return _mean_over_groups(losses, where)


def listwise_softmax(
    scores: Float[Array, "Q C"],
    labels: Float[Array, "Q C"],
    *,
    where: Bool[Array, "Q C"] | None = None,
) -> Float32[Array, ""]:
    """Softmax cross-entropy with graded labels (Bruch et al. 2019, ICTIR).

        loss = 1/Q  sum_q  sum_c  -y_qc / (sum_k y_qk)  log( exp(s_qc) / sum_k exp(s_qk) )

    With label 1 for the positive and 0 for all others this is InfoNCE.

    >>> import jax.numpy as jnp
    >>> scores = jnp.array([[2.0, 0.0, 0.0]])
    >>> print(f"{listwise_softmax(scores, jnp.array([[1.0, 0.0, 0.0]])):.4f}")
    0.2395
    >>> print(f"{listwise_softmax(scores, jnp.array([[3.0, 1.0, 0.0]])):.4f}")
    0.7395

    Args:
        scores: one score a candidate.
        labels: grades of at least 0. A group whose grades are all 0 gives 0.
        where: as for `info_nce`.
    """
    import rax  # not on every GPU image, and most losses do without

    where = _all_if_none(scores, where)
    scores, labels = _float32(scores, where), _float32(labels, where)
    totals = jnp.sum(labels, axis=1, keepdims=True)
    shares = labels / jnp.where(totals > 0, totals, 1)
    losses = jax.vmap(rax.softmax_loss)(scores, shares, where=where)
    return _mean_over_groups(losses, where)


def ranknet(
    scores: Float[Array, "Q C"],
    labels: Float[Array, "Q C"],
    *,
    where: Bool[Array, "Q C"] | None = None,
) -> Float32[Array, ""]:
    """RankNet: logistic loss on pairs of different labels (Burges et al. 2005, ICML).

        loss = 1/Q  sum_q  mean over (i, j) with y_qi > y_qj of  log(1 + exp(s_qj - s_qi))

    The mean over a group's pairs instead of their sum keeps the size of gradients independent of
    the number of candidates.

    >>> import jax.numpy as jnp
    >>> scores = jnp.array([[2.0, 0.0, 0.0]])
    >>> print(f"{ranknet(scores, jnp.array([[1.0, 0.0, 0.0]])):.4f}")
    0.1269
    >>> print(f"{ranknet(scores, jnp.array([[1.0, 1.0, 1.0]])):.4f}")
    0.0000

    Args:
        scores: one score a candidate.
        labels: grades, of which only the order counts. A group of equal ones gives 0.
        where: as for `info_nce`.
    """
    import rax

    where = _all_if_none(scores, where)
    losses = jax.vmap(rax.pairwise_logistic_loss)(
        _float32(scores, where), _float32(labels, where), where=where
    )
    return _mean_over_groups(losses, where)


def margin_mse(
    scores: Float[Array, "Q C"],
    teacher_scores: Float[Array, "Q C"],
    *,
    where: Bool[Array, "Q C"] | None = None,
) -> Float32[Array, ""]:
    """Margin-MSE: the teacher's distances of positive and negatives (Hofstätter et al. 2020).

        loss = 1/Q  sum_q  mean over negatives c of  ((s_q0 - s_qc) - (t_q0 - t_qc))^2

    arXiv 2010.02666. The scale of the teacher's scores becomes that of the model's.

    >>> import jax.numpy as jnp
    >>> scores, teacher = jnp.array([[2.0, 0.0, 1.0]]), jnp.array([[9.0, 6.0, 7.0]])
    >>> print(margin_mse(scores, teacher))
    1.0

    Args:
        scores: one score a candidate.
        teacher_scores: those of the teacher; a constant added to a group's changes nothing.
        where: as for `info_nce`. A group without negatives gives 0.
    """
    where = _all_if_none(scores, where)
    scores, teacher_scores = _float32(scores, where), _float32(teacher_scores, where)
    margins, wanted = (s[:, :1] - s[:, 1:] for s in (scores, teacher_scores))
    errors = jnp.sum(optax.losses.squared_error(margins, wanted), axis=1, where=where[:, 1:])
    num_negatives = jnp.sum(where[:, 1:], axis=1)
    return _mean_over_groups(errors / jnp.maximum(num_negatives, 1), where)


def kl_distillation(
    scores: Float[Array, "Q C"],
    teacher_scores: Float[Array, "Q C"],
    *,
    where: Bool[Array, "Q C"] | None = None,
    temperature: float = 1.0,
) -> Float32[Array, ""]:
    """Divergence of the model's softmax over a group from the teacher's (Hinton et al. 2015).

        loss = T^2/Q  sum_q  sum_c  p_qc log( p_qc / m_qc )
        p = softmax(teacher_scores / T),  m = softmax(scores / T) over the group

    The factor T^2 keeps the size of gradients about the same at every temperature (arXiv
    1503.02531, section 2).

    >>> import jax.numpy as jnp
    >>> scores, teacher = jnp.array([[2.0, 0.0, 0.0]]), jnp.array([[5.0, 3.0, 3.0]])
    >>> print(f"{kl_distillation(scores, teacher):.4f}")
    0.0000
    >>> print(f"{kl_distillation(jnp.zeros((1, 3)), teacher):.4f}")
    0.4330

    Args:
        scores: one score a candidate.
        teacher_scores: those of the teacher; a constant added to a group's changes nothing.
        where: as for `info_nce`. A group of the positive alone gives 0.
        temperature: T, above 0.
    """
    where = _all_if_none(scores, where)
    # -inf where there is no candidate, and minus it would be NaN: 0 takes its place.
    log_model, log_teacher = (
        jnp.where(where, jax.nn.log_softmax(_float32(s, where) / temperature, where=where), 0)
        for s in (scores, teacher_scores)
    )
    losses = optax.losses.kl_divergence_with_log_targets(log_model, log_teacher, where=where)
    return temperature**2 * _mean_over_groups(losses, where)


def group_accuracy(
    scores: Float[Array, "Q C"], *, where: Bool[Array, "Q C"] | None = None
) -> Float32[Array, ""]:
    """Share of groups whose positive, candidate 0, scores strictly above every negative.

    >>> import jax.numpy as jnp
    >>> print(group_accuracy(jnp.array([[2.0, 1.0, 0.0], [1.0, 1.0, 0.0]])))
    0.5
    """
    where = _all_if_none(scores, where)
    is_beaten = (scores[:, :1] > scores[:, 1:]) | ~where[:, 1:]
    return _mean_over_groups(is_beaten.all(axis=1).astype(jnp.float32), where)


def _all_if_none(
    scores: Float[Array, "Q C"], where: Bool[Array, "Q C"] | None
) -> Bool[Array, "Q C"]:
    return jnp.ones(scores.shape, bool) if where is None else where


def _float32(values: Float[Array, "Q C"], where: Bool[Array, "Q C"]) -> Float32[Array, "Q C"]:
    """The values, and 0 where there is no candidate: what stands there must reach no gradient."""
    return jnp.where(where, values.astype(jnp.float32), 0)


def _mean_over_groups(
    losses: Float32[Array, " Q"], where: Bool[Array, "Q C"]
) -> Float32[Array, ""]:
    """The mean over groups that have their positive; 0 where there is none."""
    has_positive = where[:, 0]
    return jnp.sum(losses, where=has_positive) / jnp.maximum(jnp.sum(has_positive), 1)
