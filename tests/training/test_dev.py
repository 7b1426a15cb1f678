"""The dev sample: which queries, which candidates, and measures of a known order."""

from pathlib import Path

import numpy as np
import pytest

from jaxrank.errors import InputError
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import PairTokenizer, load_tokenizer
from jaxrank.training.config import DevConfig
from jaxrank.training.dev import DevSample, draw_sample
from jaxrank.training.per_query import read_per_query

QUERIES = {f"q{number}": f"question {number}" for number in range(8)}
DOCUMENTS = {f"d{number}": "word " * (number + 1) for number in range(5)}
RUN = {query_id: {f"d{n}": 5.0 - n for n in range(5)} for query_id in QUERIES if query_id != "q7"}
# d4 has the most tokens, so that a scorer by length puts it first.
QRELS = {query_id: {"d4": 1} for query_id in QUERIES}


@pytest.fixture(scope="module")
def tokenizer(bert_tokenizer_folder: Path) -> PairTokenizer:
    return PairTokenizer(load_tokenizer(bert_tokenizer_folder), TextConfig(max_length=32))


def draw(
    tokenizer: PairTokenizer, run: dict[str, dict[str, float]] | None = None, **values: object
) -> DevSample:
    return draw_sample(
        DevConfig(run=Path("run"), measures=("RR@10",), **values),
        run=RUN if run is None else run,
        qrels=QRELS,
        queries=QUERIES,
        documents=DOCUMENTS,
        tokenizer=tokenizer,
    )


def test_measures_are_those_of_the_order_by_score(tokenizer: PairTokenizer):
    sample = draw(tokenizer, queries=None)
    by_length = sample.evaluate(
        lambda pairs: np.array([len(pair.input_ids) for pair in pairs], np.float32)
    )
    # q7 has no candidates and counts 0.
    assert by_length == {"dev/RR@10": pytest.approx(7 / 8)}
    assert sample.evaluate_first_stage() == {"first_stage/RR@10": pytest.approx(7 / 8 / 5)}


def test_values_of_all_queries_are_kept_those_without_candidates_as_0(
    tokenizer: PairTokenizer, tmp_path: Path
):
    sample = draw(tokenizer, queries=None)
    paths = {name: tmp_path / "dev" / f"{name}.jsonl" for name in ("first_stage", "step-000001")}
    random = np.random.default_rng(0)
    means = sample.evaluate(lambda pairs: random.normal(size=len(pairs)), path=paths["step-000001"])
    first_means = sample.evaluate_first_stage(path=paths["first_stage"])
    kept = read_per_query(paths["step-000001"])["RR@10"]
    first = read_per_query(paths["first_stage"])["RR@10"]
    assert list(kept) == list(first) == sorted(QUERIES)
    assert kept["q7"] == first["q7"] == 0.0
    assert first["q0"] == pytest.approx(1 / 5)
    assert len(set(kept.values())) > 2
    assert sum(kept.values()) / 8 == pytest.approx(means["dev/RR@10"])
    assert sum(first.values()) / 8 == pytest.approx(first_means["first_stage/RR@10"])


def test_candidates_are_the_best_of_the_run(tokenizer: PairTokenizer):
    sample = draw(tokenizer, queries=None, depth=3)
    assert list(sample.candidates["q0"]) == ["d0", "d1", "d2"]
    assert len(sample.pairs) == 7 * 3
    assert sample.evaluate_first_stage() == {"first_stage/RR@10": 0.0}


def test_the_sample_is_drawn_by_its_seed(tokenizer: PairTokenizer):
    first, again, other = (draw(tokenizer, queries=4, seed=seed).qrels for seed in (0, 0, 1))
    assert len(first) == 4
    assert first == again != other


def test_a_run_of_another_split_is_refused(tokenizer: PairTokenizer):
    with pytest.raises(InputError, match=r"dev.run: none of its 1 queries is judged.*'dev'"):
        draw(tokenizer, {"x1": {"d0": 1.0}})


def test_a_candidate_that_the_collection_lacks_is_named(tokenizer: PairTokenizer):
    with pytest.raises(
        InputError,
        match=r"dev.run: query 'q0' has document 'd9', which data.collection lacks; give",
    ):
        draw(tokenizer, {"q0": {"d9": 1.0}}, queries=None)
