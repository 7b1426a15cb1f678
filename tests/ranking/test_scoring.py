"""A pair's score does not depend on its neighbours, its bucket or the batch size."""

import numpy as np
import pytest

from jaxrank.errors import InputError
from jaxrank.models.bert import BertConfig
from jaxrank.models.mamba import MambaConfig
from jaxrank.models.module import RerankerConfig, RerankerModule, build_module, init_module
from jaxrank.models.module import parameters as parameters_of
from jaxrank.ranking.scoring import Scorer
from jaxrank.text.tokenize import TokenizedPair

BERT = RerankerConfig(
    "bert",
    BertConfig(
        vocab_size=100, hidden_size=32, num_layers=2, num_heads=2, intermediate_size=64,
        initializer_range=0.2,
    ),
)  # fmt: skip
MAMBA = RerankerConfig("mamba", MambaConfig(vocab_size=100, hidden_size=32, num_layers=2))
CONFIGS = {"bert": BERT, "mamba": MAMBA}


def make_pairs(count: int, *, longest: int) -> list[TokenizedPair]:
    rng = np.random.default_rng(0)
    return [
        TokenizedPair(
            rng.integers(1, 100, length).astype(np.int32), (np.arange(length) % 2).astype(np.int32)
        )
        for length in rng.integers(1, longest + 1, count)
    ]


def make_scorer(module: RerankerModule, *, batch_size: int = 8, max_length: int = 70) -> Scorer:
    return Scorer(module, pad_token_id=0, max_length=max_length, batch_size=batch_size)


@pytest.mark.parametrize("family", ["bert", "mamba"])
def test_batch_and_bucket_change_no_score_by_more_than_1e_5(family: str) -> None:
    module = init_module(CONFIGS[family], seed=0)
    pairs = make_pairs(21, longest=70)
    scores = make_scorer(module).score(pairs)
    assert np.std(scores) > 1e-2
    one_by_one = make_scorer(module, batch_size=1)
    alone = np.concatenate([one_by_one.score([pair]) for pair in pairs])
    padded_more = make_scorer(module, max_length=200)
    padded_more._buckets = (200,)
    np.testing.assert_allclose(alone, scores, atol=1e-5, rtol=0)
    np.testing.assert_allclose(padded_more.score(pairs), scores, atol=1e-5, rtol=0)


def test_scores_come_in_the_order_of_the_pairs() -> None:
    scorer = make_scorer(init_module(BERT, seed=0))
    pairs = make_pairs(21, longest=70)
    order = np.random.default_rng(1).permutation(21)
    shuffled = scorer.score([pairs[i] for i in order])
    np.testing.assert_allclose(shuffled, scorer.score(pairs)[order], atol=1e-5, rtol=0)


def test_no_pairs_give_no_scores() -> None:
    assert make_scorer(init_module(BERT, seed=0)).score([]).shape == (0,)


def test_a_score_that_is_not_finite_is_refused() -> None:
    broken = {name: np.asarray(a) for name, a in parameters_of(init_module(BERT, seed=0)).items()}
    broken["head.score.bias"] = np.array([np.nan], np.float32)
    with pytest.raises(InputError, match="3 of 3 scores are not finite"):
        make_scorer(build_module(BERT, broken)).score(make_pairs(3, longest=9))
