"""T5's relative position bias: what is added to a score by the way from the query to the key.

Raffel et al., 2020, arXiv 1910.10683, section 2.1. All layers of a stack share one table.
"""

import math

import numpy as np
from flax import nnx
from jax import numpy as jnp

from jaxrank.models.layers import Embedding
from jaxrank.shapes import Array, Float32


class PositionBias(nnx.Module):
    """A bias for each head and offset; matches T5Attention.compute_bias.

    Args:
        num_heads: heads of the attention.
        num_buckets, max_distance, is_causal: see `position_buckets`.
        standard_deviation: of the table at the start.
    """

    def __init__(
        self,
        num_heads: int,
        *,
        num_buckets: int,
        max_distance: int,
        is_causal: bool,
        standard_deviation: float,
        rngs: nnx.Rngs,
    ) -> None:
        self.table = Embedding(
            num_buckets,
            num_heads,
            standard_deviation=standard_deviation,
            dtype=jnp.float32,  # that of the scores
            rngs=rngs,
        )
        self.num_buckets = num_buckets
        self.max_distance = max_distance
        self.is_causal = is_causal

    def __call__(self, length: int) -> Float32[Array, "1 H L L"]:
        """The biases of all pairs of `length` positions."""
        buckets = position_buckets(
            np.arange(1 - length, length),
            num_buckets=self.num_buckets,
            max_distance=self.max_distance,
            is_causal=self.is_causal,
        )
        # Looked up once for each offset, then laid out: the buckets of all pairs would be a
        # constant of L^2 numbers in the compiled program.
        by_offset = self.table(jnp.asarray(buckets))
        positions = jnp.arange(length)
        offset_LL = positions[None, :] - positions[:, None]
        bias_LLH = jnp.take(by_offset, offset_LL + (length - 1), axis=0)
        return jnp.moveaxis(bias_LLH, -1, 0)[None]


def position_buckets(
    offsets: np.ndarray, *, num_buckets: int, max_distance: int, is_causal: bool
) -> np.ndarray:
    """Row of the table for each offset, key minus query.

    Half of the rows (a quarter for each direction where keys may lie ahead) stand for one distance
    each, the others for ranges that grow geometrically up to `max_distance`, from which on all
    distances are alike. Float32 as in the published implementations, since a distance on the edge
    of a range falls to the side that the rounding takes.
    """
    if is_causal:
        ahead, distance = np.zeros_like(offsets), np.maximum(-offsets, 0)
    else:
        num_buckets //= 2
        ahead, distance = np.where(offsets > 0, num_buckets, 0), np.abs(offsets)
    exact = num_buckets // 2
    ratio = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact))
    ratio = ratio / np.float32(math.log(max_distance / exact)) * np.float32(num_buckets - exact)
    far = np.minimum(exact + ratio.astype(np.int32), num_buckets - 1)
    return (ahead + np.where(distance < exact, distance, far)).astype(np.int32)
