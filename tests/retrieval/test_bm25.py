import math
from pathlib import Path

import numpy as np
import pytest

from jaxrank.data.collection import Collection
from jaxrank.errors import InputError
from jaxrank.evaluation.measures import evaluate_run
from jaxrank.retrieval.bm25 import Bm25
from jaxrank.retrieval.first_stage import FirstStage

DOCUMENTS = {
    "d1": "Asthma attacks narrow the airways.",
    "d2": "Glaucoma damages the optic nerve; glaucoma is painless.",
    "d3": "An optic nerve carries signals.",
    "d4": "",
}


def test_scores_follow_the_formula() -> None:
    run = Bm25.build(DOCUMENTS, k1=0.9, b=0.4).search({"q": "glaucoma nerves"}, depth=10)
    lengths = {"d1": 4, "d2": 6, "d3": 4, "d4": 0}  # without "the", "is", "an"
    average = np.mean(list(lengths.values()))

    def weight(tf: int, df: int, document_id: str) -> float:
        idf = math.log(1 + (4 - df + 0.5) / (df + 0.5))
        return idf * tf / (tf + 0.9 * (1 - 0.4 + 0.4 * lengths[document_id] / average))

    expected = {"d2": weight(2, 1, "d2") + weight(1, 2, "d2"), "d3": weight(1, 2, "d3")}
    assert run == {"q": pytest.approx(expected, rel=1e-6)}
    assert list(run["q"]) == ["d2", "d3"]


def test_stems_are_porters_and_case_is_ignored() -> None:
    # The first Porter stemmer makes "gener" of both; Porter 2 keeps "generous" apart.
    index = Bm25.build({"d1": "GENERALLY", "d2": "unrelated"})
    assert index.search({"q": "generous"}, depth=10)["q"].keys() == {"d1"}


def test_queries_that_match_nothing_are_not_in_the_run() -> None:
    queries = {"none": "zebra", "blank": "", "stopwords": "what is the", "q": "asthma"}
    assert list(Bm25.build(DOCUMENTS).search(queries, depth=10)) == ["q"]


def test_ties_at_the_last_rank_go_to_the_lower_ids() -> None:
    documents = {f"d{i:02}": "asthma" for i in reversed(range(30))} | {"other": "nerve"}
    run = Bm25.build(documents).search({"q": "asthma"}, depth=5)
    assert list(run["q"]) == ["d00", "d01", "d02", "d03", "d04"]


def test_depth_bounds_the_candidates_and_may_exceed_the_collection() -> None:
    index = Bm25.build(DOCUMENTS)
    assert len(index.search({"q": "optic nerve"}, depth=1)["q"]) == 1
    assert len(index.search({"q": "optic nerve"}, depth=1000)["q"]) == 2


def test_bm25_is_a_first_stage() -> None:
    index: FirstStage = Bm25.build(DOCUMENTS)
    assert index.search({}, depth=3, progress=False) == {}


@pytest.mark.parametrize("parameters", [{"k1": -0.1}, {"k1": math.nan}, {"b": 1.5}, {"b": -1.0}])
def test_parameters_out_of_range_are_refused(parameters: dict[str, float]) -> None:
    with pytest.raises(InputError, match="is needed"):
        Bm25.build(DOCUMENTS, **parameters)


def test_documents_without_words_and_depth_zero_are_refused() -> None:
    with pytest.raises(InputError, match="no word to index in 2 documents"):
        Bm25.build({"d1": "", "d2": "a . the"})
    with pytest.raises(InputError, match="depth: 0"):
        Bm25.build(DOCUMENTS).search({"q": "asthma"}, depth=0)


def test_nothing_is_printed_without_progress(capfd: pytest.CaptureFixture[str]) -> None:
    Bm25.build(DOCUMENTS).search({"q": "asthma"}, depth=3)
    assert capfd.readouterr() == ("", "")


def test_medquad_mini_reaches_its_known_figures(medquad_mini: Path) -> None:
    collection = Collection.open(medquad_mini)
    run = Bm25.build(collection.documents).search(collection.split_queries("test"), depth=100)
    means = evaluate_run(collection.qrels("test"), run, ["RR@10", "nDCG@10"]).means
    assert means == pytest.approx({"RR@10": 0.522, "nDCG@10": 0.609}, abs=5e-4)


MEDQUAD = Path(__file__).resolve().parents[3] / "shared" / "data" / "medquad"


@pytest.mark.slow
@pytest.mark.skipif(not MEDQUAD.is_dir(), reason="the whole of medquad is not here")
def test_medquad_dev_reaches_its_known_figures() -> None:
    collection = Collection.open(MEDQUAD)
    run = Bm25.build(collection.documents).search(collection.split_queries("dev"), depth=100)
    means = evaluate_run(collection.qrels("dev"), run, ["RR@10", "nDCG@10", "R@100"]).means
    assert means == pytest.approx({"RR@10": 0.486, "nDCG@10": 0.562, "R@100": 0.911}, abs=5e-4)
