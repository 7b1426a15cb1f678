"""Linear: the projection that all architectures use, whole or in parts."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx

from jaxrank.shapes import Array, Float


class Linear(nnx.Linear):
    """A linear layer whose bias is added in float32.

    In half precision the gradient of a bias, a sum over all tokens of a batch, would be added up in
    that very precision: in bfloat16 a sum of ones does not get beyond 256.
    """

    def __call__(self, inputs: Float[Array, "... D"], out_sharding: Any = None) -> Array:
        """Project vectors; the result has the layer's dtype."""
        bias = None if self.bias is None else self.bias[...]
        return self._project(inputs, self.kernel[...], bias, out_sharding)

    def _project(
        self, inputs: Array, kernel: Array, bias: Array | None, out_sharding: Any = None
    ) -> Array:
        inputs, kernel = self.promote_dtype((inputs, kernel), dtype=self.dtype)
        dimensions = (((inputs.ndim - 1,), (0,)), ((), ()))
        y = self.dot_general(
            inputs, kernel, dimensions, precision=self.precision, out_sharding=out_sharding
        )
        if bias is None:
            return y
        wide = bias.astype(jnp.float32).reshape((1,) * (y.ndim - 1) + (-1,))
        return (y.astype(jnp.float32) + wide).astype(y.dtype)

    def in_parts(self, inputs: Float[Array, "... D"], ends: Sequence[int]) -> list[Array]:
        """What `jnp.split` makes of the result, by a product each.

        Parts of one product would be copied before they enter a kernel, and their gradients joined
        in another copy; each passes over arrays as large as the parts.

        Args:
            ends: where all parts but the last end.
        """
        kernels = jnp.split(self.kernel[...], ends, axis=1)
        biases = [None] * len(kernels) if self.bias is None else jnp.split(self.bias[...], ends)
        return [
            self._project(inputs, kernel, bias)
            for kernel, bias in zip(kernels, biases, strict=True)
        ]
