import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from jaxrank.data.collection import Collection
from jaxrank.data.document_text import DocumentFields
from jaxrank.data.importing.importer import import_collection
from jaxrank.data.importing.layouts.collection_source import gather_queries
from jaxrank.data.importing.layouts.detect import open_source
from jaxrank.errors import InputError
from tests.data.layout_files import documents, splits


class IrDoc(NamedTuple):
    doc_id: str
    title: str
    body: str
    url: str


class IrAbstract(NamedTuple):
    doc_id: str
    title: str
    abstract: str

    def default_text(self) -> str:
        return f"{self.title} {self.abstract}"


class IrQuery(NamedTuple):
    query_id: str
    text: str

    def default_text(self) -> str:
        return self.text


class IrQrel(NamedTuple):
    query_id: str
    doc_id: str
    relevance: int


@pytest.fixture
def registered() -> Iterator[str]:
    """Datasets of the package's own kind that need no network; the name of their documents."""
    ir_datasets = pytest.importorskip("ir_datasets")
    formats = ir_datasets.formats

    class Docs(formats.BaseDocs):
        def docs_iter(self) -> Iterator[IrDoc]:
            yield IrDoc("d1", "One", "first\nbody", "http://one")
            yield IrDoc("d2", "", "second", "")

        def docs_cls(self) -> type[IrDoc]:
            return IrDoc

    class Abstracts(formats.BaseDocs):
        def docs_iter(self) -> Iterator[IrAbstract]:
            yield IrAbstract("a1", "Title", "abstract")

        def docs_cls(self) -> type[IrAbstract]:
            return IrAbstract

    class Queries(formats.BaseQueries):
        def queries_iter(self) -> Iterator[IrQuery]:
            yield IrQuery("q1", "what?")

    class Qrels(formats.BaseQrels):
        def qrels_iter(self) -> Iterator[IrQrel]:
            yield IrQrel("q1", "d1", 2)
            yield IrQrel("q1", "d2", 0)

    class Small(Qrels):
        def qrels_iter(self) -> Iterator[IrQrel]:
            yield IrQrel("q1", "d2", 1)

    class Repeated(Qrels):
        def qrels_iter(self) -> Iterator[IrQrel]:
            for _ in range(3):
                yield from super().qrels_iter()

    class TwoGrades(Qrels):
        def qrels_iter(self) -> Iterator[IrQrel]:
            yield from super().qrels_iter()
            yield IrQrel("q1", "d1", 2)
            yield IrQrel("q1", "d1", 1)

    registry = ir_datasets.registry
    names = {
        "jaxrank-stand-in": ir_datasets.Dataset(Docs()),
        "jaxrank-stand-in/dev": ir_datasets.Dataset(Docs(), Queries(), Qrels()),
        "jaxrank-stand-in/dev/small": ir_datasets.Dataset(Docs(), Queries(), Small()),
        "jaxrank-stand-in/repeated": ir_datasets.Dataset(Docs(), Queries(), Repeated()),
        "jaxrank-stand-in/trec-dl-2019": ir_datasets.Dataset(Docs(), Queries(), Qrels()),
        "jaxrank-stand-in/trec-dl-2019/judged": ir_datasets.Dataset(Docs(), Queries(), Small()),
        "jaxrank-stand-in/two": ir_datasets.Dataset(Docs(), Queries(), TwoGrades()),
        "jaxrank-abstracts": ir_datasets.Dataset(Abstracts(), Queries(), Qrels()),
    }
    for name, dataset in names.items():
        registry.register(name, dataset)
    yield "jaxrank-stand-in"
    for name in names:
        registry._registered.pop(name)


def test_ids_of_ir_datasets_share_documents_and_give_a_split_each(
    registered: str, monkeypatch: pytest.MonkeyPatch
):
    import ir_datasets

    monkeypatch.setattr(ir_datasets, "docs_parent_id", lambda name: name.split("/")[0])
    source = open_source(f"ir_datasets:{registered}/dev,{registered}/trec-dl-2019,{registered}")
    assert (source.layout, source.document_text) == ("ir-datasets", "url-title-body")
    assert documents(source) == {
        "d1": DocumentFields("first\nbody", "One", "http://one"),
        "d2": DocumentFields("second"),
    }
    assert gather_queries(source.queries) == {"q1": "what?"}
    assert splits(source) == {split: {"q1": {"d1": 2, "d2": 0}} for split in ("dev", "dl19")}
    assert any("has no queries with judgements, hence no split" in note for note in source.notes)
    with pytest.raises(InputError, match=r"split two: .*'q1' and document 'd1' are judged 2 and 1"):
        splits(open_source(f"ir_datasets:{registered}/two"))
    with pytest.raises(InputError, match="of different documents"):
        open_source(f"ir_datasets:{registered},jaxrank-abstracts")


def test_another_id_is_another_import(
    registered: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import ir_datasets

    monkeypatch.setattr(ir_datasets, "docs_parent_id", lambda name: name.split("/")[0])
    judged = {}
    # The second two give the same split.
    for name in ("dev", "dev/small", "trec-dl-2019", "trec-dl-2019/judged"):
        imported = import_collection(open_source(f"ir_datasets:{registered}/{name}"), tmp_path)
        assert imported.done == "everything"
        collection = Collection.open(tmp_path)
        judged[name] = {split: collection.qrels(split) for split in collection.splits}
    assert judged == {
        "dev": {"dev": {"q1": {"d1": 2, "d2": 0}}},
        "dev/small": {"dev-small": {"q1": {"d2": 1}}},
        "trec-dl-2019": {"dl19": {"q1": {"d1": 2, "d2": 0}}},
        "trec-dl-2019/judged": {"dl19": {"q1": {"d2": 1}}},
    }


def test_judgements_that_come_again_are_counted(
    registered: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import ir_datasets

    monkeypatch.setattr(ir_datasets, "docs_parent_id", lambda name: name.split("/")[0])
    source = open_source(f"ir_datasets:{registered}/repeated")
    said = import_collection(source, tmp_path).report.lines()
    assert "repeated: 1 judged query, 2 judgements, 4 more say the same again" in said


def test_documents_without_a_body_are_the_text_that_ir_datasets_gives(
    registered: str, monkeypatch: pytest.MonkeyPatch
):
    import ir_datasets

    monkeypatch.setattr(ir_datasets, "docs_parent_id", lambda name: name)
    source = open_source("jaxrank-abstracts", "ir-datasets")
    assert source.document_text == "body"
    assert documents(source) == {"a1": DocumentFields("Title abstract")}
    assert set(source.qrels) == {"test"}


def test_ir_datasets_that_is_not_there_or_knows_no_such_id_is_named(
    monkeypatch: pytest.MonkeyPatch,
):
    pytest.importorskip("ir_datasets")
    with pytest.raises(InputError, match="no-such-thing: ir_datasets knows no such id"):
        open_source("ir_datasets:no-such-thing")
    with pytest.raises(InputError, match="layout: got beir; ir_datasets:x is of ir-datasets"):
        open_source("ir_datasets:x", "beir")
    monkeypatch.setitem(sys.modules, "ir_datasets", None)
    with pytest.raises(InputError, match=r"not installed; pip install 'jaxrank\[ir-datasets\]'"):
        open_source("ir_datasets:msmarco-document/dev")
