import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from transformers.models.t5.modeling_t5 import T5Attention

from jaxrank.models.position_bias import PositionBias, position_buckets


@pytest.mark.parametrize(("buckets", "distance"), [(32, 128), (8, 9), (16, 20), (32, 256), (4, 3)])
@pytest.mark.parametrize("is_causal", [False, True])
def test_offsets_fall_into_pytorchs_buckets(buckets: int, distance: int, is_causal: bool):
    offsets = np.arange(-1500, 1501)
    ours = position_buckets(
        offsets, num_buckets=buckets, max_distance=distance, is_causal=is_causal
    )
    theirs = T5Attention._relative_position_bucket(
        torch.from_numpy(offsets),
        bidirectional=not is_causal,
        num_buckets=buckets,
        max_distance=distance,
    )
    np.testing.assert_array_equal(ours, theirs.numpy())
    assert len(np.unique(ours)) == (buckets if is_causal else buckets - 1)


@pytest.mark.parametrize("is_causal", [False, True])
def test_a_bias_stands_where_its_query_and_key_stand(is_causal: bool):
    bias = PositionBias(
        2,
        num_buckets=8,
        max_distance=20,
        is_causal=is_causal,
        standard_deviation=1.0,
        rngs=nnx.Rngs(params=0),
    )
    values = np.asarray(bias(5))
    assert values.shape == (1, 2, 5, 5)
    table = np.asarray(bias.table.embedding[...])
    for query in range(5):
        for key in range(5):
            row = position_buckets(
                np.array([key - query]), num_buckets=8, max_distance=20, is_causal=is_causal
            )[0]
            np.testing.assert_array_equal(values[0, :, query, key], table[row])
    assert bias(1).shape == (1, 2, 1, 1)
    assert values.dtype == jnp.float32
