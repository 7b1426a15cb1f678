"""Losses over the scores of groups: pure functions `loss(scores, *, where=None)`, in float32."""

import jax.numpy as jnp
import optax

from jaxrank.shapes import Array, Bool, Float, Float32


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
    is_group = jnp.ones(len(scores), bool) if where is None else where[:, 0]
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(
        scores.astype(jnp.float32), jnp.zeros(len(scores), jnp.int32), where=where
    )
    return jnp.sum(losses, where=is_group) / jnp.maximum(jnp.sum(is_group), 1)


def group_accuracy(
    scores: Float[Array, "Q C"], *, where: Bool[Array, "Q C"] | None = None
) -> Float32[Array, ""]:
    """Share of groups whose positive, candidate 0, scores strictly above every negative.

    >>> import jax.numpy as jnp
    >>> print(group_accuracy(jnp.array([[2.0, 1.0, 0.0], [1.0, 1.0, 0.0]])))
    0.5
    """
    where = jnp.ones(scores.shape, bool) if where is None else where
    is_beaten = (scores[:, :1] > scores[:, 1:]) | ~where[:, 1:]
    num_groups = jnp.maximum(jnp.sum(where[:, 0]), 1)
    return jnp.sum(is_beaten.all(axis=1), where=where[:, 0]) / num_groups
