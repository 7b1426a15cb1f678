"""RMSNorm and LayerNorm: computed in float32, returned in the dtype that came in."""

import functools
from typing import Any

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
    for each of `num_groups` equal parts of the axis. Matches `MambaRMSNorm`. It has its own
    gradient, so JAX differentiates it in reverse mode only (no `jvp`).
    """
    check_array("weight", weight, x.shape[-1:])
    if x.shape[-1] % num_groups:
        raise ValueError(f"num_groups: {num_groups} came; a divisor of {x.shape[-1]} is needed")
    return _rms_norm(epsilon, num_groups, x, weight)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _rms_norm(epsilon: float, num_groups: int, x: jax.Array, weight: jax.Array) -> jax.Array:
    """As `rms_norm`; its own gradient keeps x alone, where JAX's would keep three float32 arrays of
    its size. The scales are not kept either: nobody else's, they let XLA normalise in one pass.
    """
    wide = _grouped(x, num_groups)
    y = (wide * _scale(epsilon, wide)).reshape(x.shape) * _along_last(weight, x.ndim)
    return y.astype(x.dtype)


def _scale(epsilon: float, wide: jax.Array) -> jax.Array:
    return jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + epsilon)


def _rms_norm_forward(
    epsilon: float, num_groups: int, x: jax.Array, weight: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _rms_norm(epsilon, num_groups, x, weight), (x, weight)


def _rms_norm_backward(
    epsilon: float, num_groups: int, saved: tuple[jax.Array, jax.Array], y_bar: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, weight = saved
    wide, wide_bar = _grouped(x, num_groups), y_bar.astype(jnp.float32)
    scale = _scale(epsilon, wide)
    normed_bar = _grouped(wide_bar * _along_last(weight, x.ndim), num_groups)
    # With n = x s and s = 1 / sqrt(mean(x^2) + epsilon):  dx = s (dn - n mean(dn n)).
    along = jnp.square(scale) * jnp.mean(normed_bar * wide, axis=-1, keepdims=True)
    x_bar = (scale * (normed_bar - along * wide)).reshape(x.shape)
    normed = (wide * scale).reshape(x.shape)
    weight_bar = jnp.sum(wide_bar * normed, axis=tuple(range(x.ndim - 1)))
    return x_bar.astype(x.dtype), weight_bar.astype(weight.dtype)


_rms_norm.defvjp(_rms_norm_forward, _rms_norm_backward)


def gated_rms_norm(
    y: Float[Array, "*batch D"],
    z: Float[Array, "*batch D"],
    weight: Float[Array, " D"],
    *,
    epsilon: float,
    num_groups: int = 1,
) -> Float[Array, "*batch D"]:
    """`rms_norm` of y silu(z), which stays in float32 in between. Matches `MambaRMSNormGated`.

    As `rms_norm` it is differentiated in reverse mode only.
    """
    check_array("weight", weight, y.shape[-1:])
    check_array("z", z, y.shape)
    return _gated_rms_norm(epsilon, num_groups, y, z, weight)


def _gate_and_norm(
    epsilon: float, num_groups: int, y: jax.Array, z: jax.Array, weight: jax.Array
) -> jax.Array:
    gated = y.astype(jnp.float32) * jax.nn.silu(z.astype(jnp.float32))
    normed = rms_norm(gated, weight, epsilon=epsilon, num_groups=num_groups)
    return normed.astype(y.dtype)


# Its own gradient keeps y and z as they came, and gates them again.
_gated_rms_norm = jax.custom_vjp(_gate_and_norm, nondiff_argnums=(0, 1))


def _gated_rms_norm_forward(epsilon: float, num_groups: int, *saved: Any) -> tuple[jax.Array, Any]:
    return _gated_rms_norm(epsilon, num_groups, *saved), saved


def _gated_rms_norm_backward(
    epsilon: float, num_groups: int, saved: Any, y_bar: jax.Array
) -> tuple[jax.Array, ...]:
    plain = functools.partial(_gate_and_norm, epsilon, num_groups)
    gradients: tuple[jax.Array, ...] = jax.vjp(plain, *saved)[1](y_bar)
    return gradients


_gated_rms_norm.defvjp(_gated_rms_norm_forward, _gated_rms_norm_backward)


def _grouped(x: jax.Array, num_groups: int) -> jax.Array:
    """(.., D) to float32 (.., groups, D / groups)."""
    return x.astype(jnp.float32).reshape(*x.shape[:-1], num_groups, -1)


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
