"""The official topics and judgements of MS MARCO and TREC DL; they do not ship with the project."""

from functools import cache
from pathlib import Path

import pytest

from jaxrank import import_collection
from jaxrank.data.collection import Collection
from jaxrank.data.importing.layouts.msmarco import read_tsv_queries
from jaxrank.evaluation.measures import evaluate_run
from jaxrank.evaluation.qrels import Qrels, read_qrels
from jaxrank.evaluation.tracks import TRACKS, TrackName

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "msmarco-trec-dl"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the official sets are not here")

# File -> queries, and judgements of each grade.
QRELS: dict[str, tuple[int, dict[int, int]]] = {
    "qrels.msmarco-doc.dev.txt": (5193, {1: 5193}),
    "qrels.msmarco-passage.dev-subset.txt": (6980, {1: 7437}),
    "qrels.dl19-doc.txt": (43, {0: 9661, 1: 4607, 2: 1149, 3: 841}),
    "qrels.dl20-doc.txt": (45, {0: 7331, 1: 1187, 2: 315, 3: 265}),
    "qrels.dl19-passage.txt": (43, {0: 5158, 1: 1601, 2: 1804, 3: 697}),
    "qrels.dl20-passage.txt": (54, {0: 7780, 1: 1940, 2: 1020, 3: 646}),
}
# Topics -> their number, and how many of them each file of judgements has.
TOPICS = {
    "topics.msmarco-doc.dev.txt": (5193, {"qrels.msmarco-doc.dev.txt": 5193}),
    "topics.dl19-doc.txt": (43, {"qrels.dl19-doc.txt": 43}),
    "topics.dl19-passage.txt": (43, {"qrels.dl19-passage.txt": 43}),
    "topics.dl20.txt": (200, {"qrels.dl20-doc.txt": 45, "qrels.dl20-passage.txt": 54}),
}


def official(name: str) -> Path:
    if not (FOLDER / name).is_file():
        pytest.skip(f"{name} is not here")
    return FOLDER / name


@cache
def judgements(name: str) -> Qrels:
    return read_qrels(official(name))


def read_topics(name: str) -> dict[str, str]:
    return {query.query_id: query.text for query in read_tsv_queries(official(name))}


@pytest.mark.parametrize("name", QRELS)
def test_judgements_are_complete_with_their_grades(name: str) -> None:
    qrels = judgements(name)
    grades = [grade for judged in qrels.values() for grade in judged.values()]
    assert len(qrels) == QRELS[name][0]
    assert {grade: grades.count(grade) for grade in sorted(set(grades))} == QRELS[name][1]


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("qrels.msmarco-doc.dev.txt", "2\t0\tD1650436\t1"),
        ("qrels.dl19-doc.txt", "19335 Q0 D1035833 0"),
    ],
)
def test_columns_are_separated_by_tabs_or_blanks(tmp_path: Path, name: str, first: str) -> None:
    text = official(name).read_text()
    assert text.startswith(first)
    other = tmp_path / name
    other.write_text(text.replace("\t", "  ") if "\t" in first else text.replace(" ", "\t"))
    assert read_qrels(other) == judgements(name)


@pytest.mark.parametrize("name", TOPICS)
def test_topics_are_complete_and_cover_their_judgements(name: str) -> None:
    number, judged = TOPICS[name]
    topics = read_topics(name)
    assert len(topics) == number
    assert all(text.strip() and "\r" not in text for text in topics.values())
    for qrels, count in judged.items():
        assert len(judgements(qrels).keys() & topics.keys()) == count
        assert judgements(qrels).keys() <= topics.keys()


@pytest.mark.parametrize(("name", "judged"), TOPICS["topics.dl20.txt"][1].items())
def test_a_run_of_all_200_topics_is_judged_on_those_with_judgements(name: str, judged: int) -> None:
    topics, qrels = read_topics("topics.dl20.txt"), judgements(name)
    best = {query: max(grades, key=grades.__getitem__) for query, grades in qrels.items()}
    run = {query: {best.get(query, "nothing"): 1.0} for query in topics}
    evaluation = evaluate_run(qrels, run, ["RR(rel=2)@10", "nDCG@1", "Judged@10"])
    assert evaluation.means == {"RR(rel=2)@10": 1.0, "nDCG@1": 1.0, "Judged@10": 1.0}
    assert len(evaluation.per_query["nDCG@1"]) == judged
    assert len(evaluation.unjudged_queries) == 200 - judged
    assert not evaluation.missing_queries


def test_grade_1_of_dl_passages_is_related_and_counts_for_gain_alone() -> None:
    qrels = judgements("qrels.dl19-passage.txt")
    related = {
        query: {document: 1.0 for document, grade in judged.items() if grade == 1}
        for query, judged in qrels.items()
    }
    means = evaluate_run(
        qrels, related, ["RR(rel=2)@10", "AP(rel=2)", "R(rel=2)@100", "RR@10", "nDCG@10"]
    ).means
    assert means["RR(rel=2)@10"] == means["AP(rel=2)"] == means["R(rel=2)@100"] == 0
    assert means["RR@10"] == pytest.approx(sum(map(bool, related.values())) / len(qrels))
    assert 0 < means["nDCG@10"] < 1


TRACK_QRELS: dict[TrackName, str] = {
    "msmarco-document-dev": "qrels.msmarco-doc.dev.txt",
    "msmarco-passage-dev": "qrels.msmarco-passage.dev-subset.txt",
    "dl19-document": "qrels.dl19-doc.txt",
    "dl20-document": "qrels.dl20-doc.txt",
    "dl19-passage": "qrels.dl19-passage.txt",
    "dl20-passage": "qrels.dl20-passage.txt",
}


@pytest.mark.parametrize("track", TRACK_QRELS)
def test_a_track_has_the_official_number_of_queries_and_a_perfect_run_scores_1(
    track: TrackName,
) -> None:
    qrels = judgements(TRACK_QRELS[track])
    assert TRACKS[track].num_queries == len(qrels)
    perfect = {q: {d: float(grade) for d, grade in judged.items()} for q, judged in qrels.items()}
    means = evaluate_run(qrels, perfect, TRACKS[track].measures).means
    assert means["nDCG@10"] == pytest.approx(1)
    level = 2 if track.endswith("passage") and track.startswith("dl") else 1
    answerable = sum(any(g >= level for g in judged.values()) for judged in qrels.values())
    reciprocal = next(name for name in means if name.startswith("RR"))
    assert ("rel=2" in reciprocal) == (level == 2)
    assert means[reciprocal] == pytest.approx(answerable / len(qrels))


DOCUMENT_SET = {
    "msmarco-docdev-queries.tsv": "topics.msmarco-doc.dev.txt",
    "msmarco-docdev-qrels.tsv": "qrels.msmarco-doc.dev.txt",
    "msmarco-test2020-queries.tsv": "topics.dl20.txt",
    "2020qrels-docs.txt": "qrels.dl20-doc.txt",
}


def test_an_imported_set_has_the_splits_with_their_judged_queries_alone(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "msmarco-docs.tsv").write_text("D1\thttps://example.org\ttitle\tbody\n")
    for name, file in DOCUMENT_SET.items():
        (source / name).symlink_to(official(file))
    import_collection.main([f"--source={source}", f"--output={tmp_path / 'collection'}"])
    collection = Collection.open(tmp_path / "collection")
    assert collection.splits == ["dev", "dl20"]
    counts = {split: len(collection.split_queries(split)) for split in collection.splits}
    assert counts == {"dev": 5193, "dl20": 45}
    topics = read_topics("topics.dl20.txt")
    assert len(topics.keys() & collection.queries.keys()) == 200
    assert len(topics.keys() - collection.split_queries("dl20").keys()) == 155
    for split, name in (("dev", "qrels.msmarco-doc.dev.txt"), ("dl20", "qrels.dl20-doc.txt")):
        assert collection.qrels(split) == judgements(name)
