"""Lucene itself, by way of Anserini: Java runs in this process."""

import math
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from jaxrank.data.collection import Collection
from jaxrank.errors import InputError
from jaxrank.evaluation.measures import evaluate_run
from jaxrank.evaluation.runs import Run, ranking
from jaxrank.retrieval.bm25 import Bm25
from jaxrank.retrieval.first_stage import FirstStage
from jaxrank.retrieval.lucene import Lucene
from jaxrank.retrieval.lucene_index import build_index
from jaxrank.retrieval.lucene_java import java_class, wait_for
from tests.retrieval.small_collection import write_collection

DOCUMENTS = {
    "d1": "Asthma attacks narrow the airways.",
    "d2": "Glaucoma damages the optic nerve; glaucoma is painless.",
    "d3": "An optic nerve carries signals.",
    "d4": "",
}


def built(folder: Path, documents: dict[str, str]) -> Path:
    """An index of documents."""
    build_index(write_collection(folder / "collection", documents), folder / "index", threads=2)
    return folder / "index"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of DOCUMENTS."""
    return built(tmp_path_factory.mktemp("small"), DOCUMENTS)


@pytest.fixture(scope="module")
def mini(medquad_mini: Path) -> Collection:
    return Collection.open(medquad_mini)


@pytest.fixture(scope="module")
def mini_index(mini: Collection, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mini") / "index"
    build_index(mini, folder, threads=2)
    return folder


@pytest.fixture(scope="module")
def mini_run(mini: Collection, mini_index: Path) -> Run:
    return Lucene(mini_index, threads=2).search(mini.split_queries("test"), depth=100)


def test_lucene_is_a_first_stage(small: Path) -> None:
    stage: FirstStage = Lucene(small)
    assert stage.search({}, depth=3) == {}


@pytest.mark.parametrize(("k1", "b"), [(0.9, 0.4), (4.46, 0.82)])
def test_scores_follow_the_formula(small: Path, k1: float, b: float) -> None:
    run = Lucene(small, k1=k1, b=b).search({"q": "glaucoma nerves"}, depth=10)
    lengths = {"d1": 4, "d2": 6, "d3": 4}  # without "the", "is", "an"; no text: not in the index
    average = sum(lengths.values()) / 3

    def weight(tf: int, df: int, document_id: str) -> float:
        idf = math.log(1 + (3 - df + 0.5) / (df + 0.5))
        return idf * tf / (tf + k1 * (1 - b + b * lengths[document_id] / average))

    expected = {"d2": weight(2, 1, "d2") + weight(1, 2, "d2"), "d3": weight(1, 2, "d3")}
    assert run == {"q": pytest.approx(expected, abs=6e-5)}  # Anserini rounds to four decimals
    assert list(run["q"]) == ["d2", "d3"]


def test_lucene_and_the_embedded_bm25_agree(mini: Collection, mini_run: Run) -> None:
    embedded = Bm25.build(mini.documents).search(mini.split_queries("test"), depth=100)
    assert list(mini_run) == list(embedded)
    agreeing = [q for q in embedded if ranking(embedded[q])[0] == ranking(mini_run[q])[0]]
    assert len(agreeing) > 0.95 * len(embedded)
    qrels = mini.qrels("test")
    measures = ["RR@10", "nDCG@10"]
    expected = evaluate_run(qrels, embedded, measures).means
    assert evaluate_run(qrels, mini_run, measures).means == pytest.approx(expected, abs=0.01)


def test_threads_do_not_change_the_run(mini: Collection, mini_run: Run, tmp_path: Path) -> None:
    build_index(mini, tmp_path / "index", threads=1)
    alone = Lucene(tmp_path / "index", threads=1).search(mini.split_queries("test"), depth=100)
    assert alone == mini_run


def test_ties_at_the_last_rank_go_to_the_lower_ids(tmp_path: Path) -> None:
    documents = {f"d{i:02}": "asthma" for i in reversed(range(30))} | {"other": "nerve"}
    run = Lucene(built(tmp_path, documents)).search({"q": "asthma"}, depth=5)
    assert ranking(run["q"]) == ["d00", "d01", "d02", "d03", "d04"]


def test_depth_bounds_the_candidates_and_may_exceed_the_collection(small: Path) -> None:
    index = Lucene(small)
    assert len(index.search({"q": "optic nerve"}, depth=1)["q"]) == 1
    assert len(index.search({"q": "optic nerve"}, depth=1000)["q"]) == 2


@pytest.mark.parametrize("query", ["", " ", "what is the", "AND (", '"', "zebra", "\t\n", "?*"])
def test_queries_that_match_nothing_are_not_in_the_run(small: Path, query: str) -> None:
    assert list(Lucene(small).search({"a": query, "b": "asthma"}, depth=10)) == ["b"]


@pytest.mark.parametrize(
    "query",
    [
        '+asthma: AND NOT (attacks OR "',
        "asthma~2 attacks^9 [a TO",
        "attacks\x00asthma",
        " ".join(["asthma attacks", *(f"w{number}" for number in range(3000))]),
        "asthma attacks " + "x" * 40_000,
    ],
    ids=["operators", "signs", "null", "3,000 words", "a word of 40,000 letters"],
)
def test_any_text_is_a_bag_of_words(small: Path, query: str) -> None:
    expected = Lucene(small).search({"q": "asthma attacks"}, depth=10)
    assert Lucene(small).search({"q": query}, depth=10) == expected


def test_ids_and_words_of_any_script_come_back(tmp_path: Path) -> None:
    texts = {'D1#2"\\': "alpha", "é😀": "beta 😀", "文書/1": "gamma 文書", "<&>": "delta"}
    run = Lucene(built(tmp_path, texts)).search({"ü😀": "alpha beta gamma delta"}, depth=10)
    assert run["ü😀"].keys() == texts.keys()
    assert Lucene(tmp_path / "index").search({"q": "😀"}, depth=3)["q"].keys() == {"é😀"}


@pytest.mark.parametrize("parameters", [{"k1": -0.1}, {"k1": math.nan}, {"b": 1.5}])
def test_parameters_out_of_range_are_refused(small: Path, parameters: dict[str, float]) -> None:
    with pytest.raises(InputError, match="is needed"):
        Lucene(small, **parameters)


def test_a_damaged_index_is_refused(small: Path, tmp_path: Path) -> None:
    index = shutil.copytree(small, tmp_path / "index")
    for file in index.glob("segments_*"):
        file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"not an index that Lucene can open \(Corrupt"):
        Lucene(index)


def test_nothing_is_printed_without_progress(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Lucene(built(tmp_path, DOCUMENTS)).search({"q": "asthma"}, depth=3)
    assert capfd.readouterr() == ("", "")


def test_ctrl_c_ends_the_wait_for_java(small: Path) -> None:
    Lucene(small)
    thread = java_class("java.lang.Thread")
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        wait_for(lambda: thread.sleep(20_000))
    assert time.monotonic() - begin < 10


MEDQUAD = Path(__file__).resolve().parents[3] / "shared" / "data" / "medquad"


@pytest.mark.slow
@pytest.mark.skipif(not MEDQUAD.is_dir(), reason="the whole of medquad is not here")
@pytest.mark.parametrize(("k1", "b"), [(0.9, 0.4), (4.46, 0.82)])
def test_lucene_and_the_embedded_bm25_agree_on_medquad_dev(
    tmp_path: Path, k1: float, b: float
) -> None:
    collection = Collection.open(MEDQUAD)
    qrels, queries = collection.qrels("dev"), collection.split_queries("dev")
    build_index(collection, tmp_path / "index", threads=2)
    means = [
        evaluate_run(qrels, stage.search(queries, depth=100), ["RR@10", "nDCG@10"]).means
        for stage in (
            Lucene(tmp_path / "index", k1=k1, b=b, threads=2),
            Bm25.build(collection.documents, k1=k1, b=b),
        )
    ]
    assert means[0] == pytest.approx(means[1], abs=0.01)
