"""Official files into a collection folder, by the command: whole, and nothing in silence."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from jaxrank.data.collection import Collection
from jaxrank.data.document_store.store import DocumentStore
from jaxrank.errors import InputError
from jaxrank.import_collection import main
from tests.commands.msmarco_files import ARGUMENTS, body, change, write_source


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """MS MARCO's files in the folder `source` of the working folder."""
    monkeypatch.chdir(tmp_path)
    return write_source(tmp_path / "source")


def test_official_files_become_a_collection(source: Path, capsys: pytest.CaptureFixture[str]):
    main(ARGUMENTS)
    said = capsys.readouterr().out.splitlines()
    assert re.match(r"30 documents, 1\.\d kB; on disk \d+\.\d kB; ", said[0])
    assert said[1:3] == ["empty: 1 title, 0 bodies", "14 queries"]
    assert said[3] == (
        "train: 10 judged queries, 10 judgements, 1 of them of documents that are not there, first "
        "D77"
    )
    assert said[4:6] == [
        "dev: 2 judged queries, 2 judgements",
        "dl19: 1 judged query, 2 judgements",
    ]
    assert said[6].startswith("split dl20 is left out: msmarco-test2020-queries.tsv and 2020qrels-")
    assert said[7:] == ["wrote out"]
    collection = Collection.open("out")
    assert isinstance(collection.documents, DocumentStore)
    assert list(collection.documents) == [f"D{number}" for number in range(30)]
    assert collection.documents["D3"] == f"http://x/3 {body(3)}"
    assert collection.splits == ["dev", "dl19", "train"]
    assert collection.qrels("dl19") == {"20": {"D1": 3, "D2": 0}}
    assert collection.split_queries("dev") == {"10": "query 10", "11": "query 11"}
    assert set(collection.digest()) == {
        "documents/manifest.json",
        "collection.json",
        "queries.jsonl",
        "qrels.dev.txt",
        "qrels.dl19.txt",
        "qrels.train.txt",
    }


def refused(*arguments: str) -> str:
    with pytest.raises(InputError) as error:
        main((*ARGUMENTS, *arguments))
    assert not Path("out/queries.jsonl").exists()
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("msmarco-docs.tsv", "D4\thttp://x/4\t", "D4\t", "msmarco-docs.tsv:5: 3 columns; id, url"),
        ("msmarco-docs.tsv", "D4\t", "D2\t", "msmarco-docs.tsv:5: id 'D2' was there before, on li"),
        (
            "msmarco-docs.tsv",
            '"0" said',
            '"0" has said',
            "lookup.tsv:2: document 'D1' begins at by",
        ),
        ("msmarco-doctrain-queries.tsv", "4\tq", "4 q", "train-queries.tsv:5: 1 columns; id, text"),
        (
            "msmarco-docdev-queries.tsv",
            "y 8",
            "y eight",
            "dev-queries.tsv:1: query '8' has another",
        ),
        ("msmarco-doctrain-qrels.tsv", "4 0 D4 1", "4 0 D4", "train-qrels.tsv:5: 3 columns; this"),
        (
            "msmarco-doctrain-qrels.tsv",
            "4 0 D4",
            "3 0 D3",
            "train-qrels.tsv:5: query '3' and docum",
        ),
        ("msmarco-docdev-qrels.tsv", "11 0", "77 0", "split dev: 1 of 2 judged queries have no te"),
    ],
)
def test_bad_data_is_named_by_file_and_line(
    source: Path, name: str, old: str, new: str, message: str
):
    change(source / name, old, new)
    assert message in refused()


def test_malformed_documents_are_passed_over_and_counted_where_asked(
    source: Path, capsys: pytest.CaptureFixture[str]
):
    # As long as it was, so that the others begin where the lookup says.
    change(source / "msmarco-docs.tsv", "D4\thttp://x/4\t", "D4 http://x/4\t")
    main((*ARGUMENTS, "--malformed", "skip"))
    said = capsys.readouterr().out
    assert "1 malformed line was passed over: source/msmarco-docs.tsv:5\n" in said
    assert "2 of them of documents that are not there, first D4" in said
    assert len(Collection.open("out").documents) == 29


def test_judgements_of_missing_documents_are_refused_where_asked(
    source: Path, capsys: pytest.CaptureFixture[str]
):
    option = ("--missing_documents", "refuse")
    message = r"split train: 1 of 10 judgements are of documents that are not there, first D77; "
    assert message in refused(*option)
    main(ARGUMENTS)
    with pytest.raises(InputError, match=message):  # of an import that is complete
        main((*ARGUMENTS, *option))
    change(source / "msmarco-doctrain-qrels.tsv", "9 0 D77 1", "9 0 D7 1")
    main((*ARGUMENTS, *option))
    assert "train: 10 judged queries, 10 judgements\n" in capsys.readouterr().out


def test_crlf_and_gzip_files_give_the_same_collection(source: Path):
    main(ARGUMENTS)
    (source / "msmarco-docs-lookup.tsv").unlink()  # of the plain file's bytes
    for path in list(source.iterdir()):
        content = path.read_bytes()
        path.unlink()
        packed = gzip.compress(content.replace(b"\n", b"\r\n"))
        path.with_name(f"{path.name}.gz").write_bytes(packed)
    main((*ARGUMENTS[:-1], "packed"))
    plain, packed = Collection.open("out"), Collection.open("packed")
    assert dict(packed.documents) == dict(plain.documents)
    assert packed.queries == plain.queries
    for split in plain.splits:
        assert packed.qrels(split) == plain.qrels(split)


def test_an_import_into_its_own_source_is_refused(tmp_path: Path, medquad_mini: Path):
    with pytest.raises(InputError, match=r"holds corpus\.jsonl already; import into another"):
        main(("--source", str(medquad_mini), "--output", str(medquad_mini)))


def test_a_source_without_queries_says_which_files_are_missing(source: Path):
    for path in source.glob("*queries*"):
        path.unlink()
    assert "no queries go with it; split train is left out: msmarco-doctrain-queries" in refused()


def test_a_collection_of_json_lines_is_the_same_when_imported(tmp_path: Path, medquad_mini: Path):
    main(("--source", str(medquad_mini), "--output", str(tmp_path / "out")))
    plain, stored = Collection.open(medquad_mini), Collection.open(tmp_path / "out")
    assert list(stored.documents.items()) == list(plain.documents.items())
    assert stored.queries == plain.queries
    assert stored.qrels("test") == plain.qrels("test")
    name = next(iter(plain.documents))
    assert stored.documents.fingerprint(name) == plain.documents.fingerprint(name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"format": 2}, "'format': 1 is needed"),
        ({"format": 1, "document_text": "title"}, "'document_text': got 'title'; needed is one of"),
        ({"format": 1, "documents": 3}, r"got \['documents'\]; format, layout and document_text"),
        ({"format": 1, "layout": 3}, "'layout': got 3"),
    ],
)
def test_a_bad_collection_json_is_named(source: Path, content: dict[str, Any], message: str):
    main(ARGUMENTS)
    Path("out/collection.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"collection\.json: {message}"):
        Collection.open("out")
