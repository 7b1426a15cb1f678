"""Which index a search takes: built, opened again, of other tools, of another collection."""

from pathlib import Path

import pytest

from jaxrank.data.collection import Collection
from jaxrank.errors import InputError
from jaxrank.evaluation.runs import read_run
from jaxrank.retrieval import searching
from jaxrank.retrieval.searching import SearchReport, search_queries
from tests.retrieval.small_collection import write_collection

DOCUMENTS = {"d1": "asthma attack", "d2": "asthma", "d3": "gout", "empty": ""}


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    return write_collection(
        tmp_path / "collection", DOCUMENTS, {"q1": "asthma attack", "q2": "zebra"}
    )


def by_lucene(
    collection: Collection, output: Path, index: str | None = None, **options: float
) -> SearchReport:
    settings = {"k1": 0.9, "b": 0.4} | options
    return search_queries(
        collection,
        collection.queries,
        output,
        backend="lucene",
        index=index,
        depth=10,
        threads=2,
        **settings,
    )


def test_runs_of_one_folder_share_an_index(collection: Collection, tmp_path: Path) -> None:
    first = by_lucene(collection, tmp_path / "runs" / "a.run").lines()
    assert first[0].startswith("4 documents indexed in ")
    assert ", 1 of them without text, in " in first[0]
    assert first[2] == "1 queries match no document and are not in the run"
    second = by_lucene(collection, tmp_path / "runs" / "b.run").lines()
    assert second[0].startswith("index of 4 documents in ")
    assert "lucene-index opened in" in second[0]
    names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert names == [".lucene-index.lock", "a.run", "b.run", "lucene-index"]
    assert (tmp_path / "runs" / "a.run").read_text().split()[5] == "lucene"
    assert list(read_run(tmp_path / "runs" / "a.run")["q1"]) == ["d1", "d2"]


def test_k1_and_b_do_not_need_another_index(collection: Collection, tmp_path: Path) -> None:
    by_lucene(collection, tmp_path / "a.run")
    by_lucene(collection, tmp_path / "b.run", k1=4.46, b=0.82)
    assert read_run(tmp_path / "a.run") != read_run(tmp_path / "b.run")


def test_an_index_that_is_out_of_date_is_refused(collection: Collection, tmp_path: Path) -> None:
    by_lucene(collection, tmp_path / "a.run")
    changed = write_collection(collection.folder, DOCUMENTS | {"d3": "goat"})
    with pytest.raises(InputError, match=r"of other documents than .*give another --index"):
        by_lucene(changed, tmp_path / "b.run")
    assert not (tmp_path / "b.run").exists()


def test_an_index_of_other_tools_is_taken_and_said_to_be_unknown(
    collection: Collection, tmp_path: Path
) -> None:
    by_lucene(collection, tmp_path / "a.run", str(tmp_path / "index"))
    (tmp_path / "index" / "jaxrank-index.json").unlink()
    report = by_lucene(collection, tmp_path / "b.run", str(tmp_path / "index"))
    assert "whose collection and texts nothing tells" in report.index
    assert read_run(tmp_path / "a.run") == read_run(tmp_path / "b.run")


def test_a_prebuilt_index_is_said_to_have_texts_of_its_own(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_lucene(collection, tmp_path / "a.run", str(tmp_path / "index"))
    monkeypatch.setattr(searching, "fetch_prebuilt", lambda _: tmp_path / "index")
    report = by_lucene(collection, tmp_path / "b.run", "msmarco-v1-doc-slim")
    assert "whose texts --document_text does not change" in report.index


def test_documents_that_the_collection_lacks_are_refused(
    collection: Collection, tmp_path: Path
) -> None:
    by_lucene(collection, tmp_path / "a.run", str(tmp_path / "index"))
    (tmp_path / "index" / "jaxrank-index.json").unlink()
    other = write_collection(tmp_path / "other", {"d1": "asthma"}, {"q1": "asthma"})
    with pytest.raises(InputError, match="index: document 'd2', found for query 'q1', is not in"):
        by_lucene(other, tmp_path / "b.run", str(tmp_path / "index"))
    assert not (tmp_path / "b.run").exists()


def test_a_folder_that_holds_something_else_is_left_alone(
    collection: Collection, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="a folder without a Lucene index"):
        by_lucene(collection, tmp_path / "a.run", str(collection.folder))
    assert (collection.folder / "corpus.jsonl").exists()


def test_a_bare_word_is_the_name_of_a_prebuilt_index_or_refused(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"nor a prebuilt index .*nearest: msmarco-v1-doc"):
        by_lucene(collection, tmp_path / "a.run", "msmarco-v1-docs")
    by_lucene(collection, tmp_path / "a.run", "./msmarco-v1-docs")
    by_lucene(collection, tmp_path / "b.run", "msmarco-v1-docs")
    assert read_run(tmp_path / "b.run")


@pytest.mark.parametrize(("option", "value"), [("index", "x"), ("threads", 2)])
def test_options_of_lucene_are_refused_for_the_embedded_engine(
    collection: Collection, tmp_path: Path, option: str, value: str | int
) -> None:
    with pytest.raises(InputError, match=f"{option}: {value}; goes with --backend lucene"):
        search_queries(
            collection,
            collection.queries,
            tmp_path / "a.run",
            k1=0.9,
            b=0.4,
            depth=10,
            **{option: value},
        )
