"""Passages joined into articles: their order, their words, and where relevant ones begin."""

import json
import sys
from pathlib import Path

import pytest

from jaxrank.data.collection import Collection
from jaxrank.errors import InputError
from jaxrank.evaluation.query_values import read_values
from scripts.medquad_articles import main

MEDQUAD = Path(__file__).resolve().parents[3] / "shared" / "data" / "medquad"
PASSAGES = {
    "A_1-1": "one two three",
    "A_1-2": "four",
    "A_1-10": "five  six",
    "A_2-1": "seven",
    "B_1-1": "eight nine",
    "B_1-2": "ten",
}
QRELS = [("q1", "A_1-10", 1), ("q2", "A_1-2", 1), ("q2", "A_1-10", 2), ("q2", "B_1-2", 1),
         ("q3", "A_2-1", 0)]  # fmt: skip


@pytest.fixture
def passages(tmp_path: Path) -> Path:
    folder = tmp_path / "passages"
    folder.mkdir()
    lines = [json.dumps({"_id": name, "text": text}) for name, text in PASSAGES.items()]
    (folder / "corpus.jsonl").write_text("\n".join(lines))
    queries = [json.dumps({"_id": name, "text": f"what is {name}"}) for name in ("q1", "q2", "q3")]
    (folder / "queries.jsonl").write_text("\n".join(queries))
    judgements = "".join(f"{query} 0 {passage} {grade}\n" for query, passage, grade in QRELS)
    (folder / "qrels.dev.txt").write_text(judgements)
    return folder


def join(monkeypatch: pytest.MonkeyPatch, source: Path, target: Path) -> Collection:
    monkeypatch.setattr(sys, "argv", ["medquad_articles", str(source), str(target)])
    main()
    return Collection.open(target)


def test_articles_hold_their_passages_in_order(
    passages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    articles = join(monkeypatch, passages, tmp_path / "articles")
    assert dict(articles.documents) == {
        "A_1": "one two three four five  six",
        "A_2": "seven",
        "B_1": "eight nine ten",
    }
    assert articles.queries == Collection.open(passages).queries
    assert articles.qrels("dev") == {"q1": {"A_1": 1}, "q2": {"A_1": 2, "B_1": 1}, "q3": {"A_2": 0}}


def test_positions_are_the_words_before_the_first_relevant_passage(
    passages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    articles = join(monkeypatch, passages, tmp_path / "articles")
    positions = read_values(tmp_path / "articles" / "positions.dev.tsv").values
    assert positions == {"q1": 4, "q2": 2}, "q3 has nothing relevant"
    words = articles.documents["A_1"].split()
    assert words[int(positions["q1"]) :] == ["five", "six"]


def test_passages_of_an_article_apart_from_each_other_are_refused(
    passages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with open(passages / "corpus.jsonl", "a") as file:
        file.write("\n" + json.dumps({"_id": "A_1-11", "text": "late"}))
    with pytest.raises(InputError, match="passage 'A_1-11' stands apart from the others"):
        join(monkeypatch, passages, tmp_path / "articles")
    assert not (tmp_path / "articles").exists()


def test_a_judged_passage_that_is_not_there_is_refused(
    passages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with open(passages / "qrels.dev.txt", "a") as file:
        file.write("q1 0 C_1-1 1\n")
    with pytest.raises(InputError, match="passage 'C_1-1' is not in the collection"):
        join(monkeypatch, passages, tmp_path / "articles")


@pytest.mark.slow
@pytest.mark.skipif(not MEDQUAD.is_dir(), reason="needs the whole of MedQuAD")
def test_medquad_makes_5471_articles_of_590_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    articles = join(monkeypatch, MEDQUAD, tmp_path / "articles")
    assert len(articles.documents) == 5_471
    assert "15,775 passages in 5,471 articles of 590 words" in capsys.readouterr().out
    positions = read_values(tmp_path / "articles" / "positions.dev.tsv").values
    assert positions.keys() == articles.qrels("dev").keys()
    assert len(positions) == 605
