"""RMSNorm and LayerNorm: computed in float32, returned in the dtype that came in."""

import jax
import jax.numpy as jnp

from jaxrank.ops.arguments import check_array
from jaxrank.shapes import Array, Float


def rms_norm(
    x: Float[Array, "*batch D"],
    weight: Float[Array, " D"],
    *,
    epsilon: float,
    num_groups: int = 1,
) -> Float[Array, "*batch D"]:
    """Scale x to a root mean square of one over its last axis, then by `weight`.

    y = weight * x / sqrt(mean(x^2) + epsilon)   (Zhang and Sennrich 2019), with a mean of its own
    for each of `num_groups` equal parts of the axis. Matches `MambaRMSNorm`.
    """
    check_array("weight", weight, x.shape[-1:])
    if x.shape[-1] % num_groups:
        raise ValueError(f"num_groups: {num_groups} came; a divisor of {x.shape[-1]} is needed")
    wide = x.astype(jnp.float32).reshape(*x.shape[:-1], num_groups, -1)
    mean_square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
    y = (wide * jax.lax.rsqrt(mean_square + epsilon)).reshape(x.shape)
    return (y * _along_last(weight, x.ndim)).astype(x.dtype)


def layer_norm(
    x: Float[Array, "*batch D"],
    weight: Float[Array, " D"],
    bias: Float[Array, " D"],
    *,
    epsilon: float,
) -> Float[Array, "*batch D"]:
    """Bring x to mean zero and variance one over its last axis, then scale and shift.

    y = weight * (x - mean) / sqrt(variance + epsilon) + bias   (Ba et al. 2016), with the variance
    of the whole population. Matches `torch.nn.LayerNorm`.
    """
    check_array("weight", weight, x.shape[-1:])
    check_array("bias", bias, x.shape[-1:])
    wide = x.astype(jnp.float32)
    # Two passes: E[x^2] - E[x]^2 cancels where the mean is large.
    centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    y = centred * jax.lax.rsqrt(variance + epsilon)
    return (y * _along_last(weight, x.ndim) + _along_last(bias, x.ndim)).astype(x.dtype)


def _along_last(vector: jax.Array, ndim: int) -> jax.Array:
    return vector.astype(jnp.float32).reshape((1,) * (ndim - 1) + vector.shape)
