"""What models ask of a packing, and what stands for each text of a row."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrank.models.bert import BertConfig
from jaxrank.models.heads import pool, pool_texts
from jaxrank.models.module import RerankerConfig, init_module
from jaxrank.models.packing import (
    EVERYTHING,
    Packing,
    text_starts,
    token_positions,
    visible_tokens,
)

# Texts of 2, 1 and 3 tokens; a text of 4 and padding; nothing at all.
PACKING = Packing(
    segment_ids=jnp.array([[1, 1, 2, 3, 3, 3], [1, 1, 1, 1, 0, 0], [0] * 6]),
    positions=jnp.array([[0, 1, 0, 0, 1, 2], [0, 1, 2, 3, 0, 0], [0] * 6]),
    first=jnp.array([[0, 2, 3], [0, 0, 0], [0, 0, 0]]),
    last=jnp.array([[1, 2, 5], [3, 0, 0], [0, 0, 0]]),
)
TEXTS = [(0, 0, slice(0, 2)), (0, 1, slice(2, 3)), (0, 2, slice(3, 6)), (1, 0, slice(0, 4))]
BERT = RerankerConfig(
    family="bert",
    backbone=BertConfig(
        vocab_size=30,
        hidden_size=8,
        num_layers=1,
        num_heads=2,
        intermediate_size=12,
        max_position_embeddings=4,
    ),
)


@pytest.mark.parametrize("pooling", ["first", "last", "mean"])
def test_each_text_of_a_row_is_pooled_as_one_of_its_own(pooling: Any):
    hidden = jax.random.normal(jax.random.key(0), (3, 6, 5))
    pooled = pool_texts(hidden, PACKING, pooling)
    for row, text, tokens in TEXTS:
        own = hidden[row : row + 1, tokens]
        want = pool(own, jnp.ones(own.shape[:2], bool), pooling)[0]
        np.testing.assert_allclose(pooled[row, text], want, rtol=1e-6)
    assert np.all(np.isfinite(pooled))


def test_a_mean_in_bfloat16_is_summed_in_float32():
    hidden = jnp.full((3, 6, 1), 1.0, jnp.bfloat16).at[0, 3].set(256.0)  # 256 + 1 rounds to 256
    np.testing.assert_allclose(pool_texts(hidden, PACKING, "mean")[0, 2, 0], 258 / 3, rtol=1e-6)


def test_recurrences_forget_at_each_text_and_padding_starts_none():
    starts = [[1, 0, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0], [0] * 6]
    np.testing.assert_array_equal(text_starts(PACKING), np.array(starts, bool))
    assert text_starts(None) is None


def test_without_a_packing_all_rows_share_positions_and_the_mask_says_what_is_seen():
    ids, mask = jnp.zeros((3, 6), jnp.int32), jnp.arange(6)[None] < jnp.array([[6], [2], [0]])
    assert token_positions(ids, None).tolist() == [0, 1, 2, 3, 4, 5]
    lengths, *others = visible_tokens(mask, None)
    assert lengths.tolist() == [6, 2, 0]
    assert others == [None, None, None]
    assert visible_tokens(None, None) == EVERYTHING
    assert visible_tokens(mask, PACKING) == EVERYTHING._replace(segment_ids=PACKING.segment_ids)


def test_a_row_may_be_longer_than_its_texts_may_be():
    module = init_module(BERT, seed=0)
    ids = jnp.arange(18).reshape(3, 6)
    scores = module.score_packed(ids, packing=PACKING)
    assert scores.shape == (3, 3)
    assert np.all(np.isfinite(scores))
    with pytest.raises(ValueError, match="6 long; this model has 4 positions"):
        module(ids, mask=PACKING.segment_ids > 0)


def test_a_key_drops_from_packed_texts():
    module = init_module(BERT, seed=0)
    ids = jnp.arange(18).reshape(3, 6)
    keys = [None, jax.random.key(1), jax.random.key(2)]
    plain, one, two = (module.score_packed(ids, packing=PACKING, key=key) for key in keys)
    for row, text, _ in TEXTS:
        assert len({float(scores[row, text]) for scores in (plain, one, two)}) == 3
