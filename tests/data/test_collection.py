import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jaxrank.data.collection import Collection, read_queries
from jaxrank.data.documents import JsonlDocuments
from jaxrank.errors import InputError

GOOD = b'{"_id": "d1", "title": "", "text": "one"}\n'


def make_collection(folder: Path, *, qrels: str = "qrels.dev.txt") -> Path:
    (folder / "corpus.jsonl").write_bytes(GOOD + b'{"_id": "d2", "title": "Two", "text": "2"}\n')
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "first?"}\n')
    (folder / qrels).parent.mkdir(exist_ok=True)
    header = "query-id\tcorpus-id\tscore\nq1\td1\t1\n"
    (folder / qrels).write_text(header if qrels.endswith("tsv") else "q1 0 d1 1\n")
    return folder


def test_every_real_document_is_read_back_from_its_offset(medquad_mini: Path):
    collection = Collection.open(medquad_mini)
    lines = (medquad_mini / "corpus.jsonl").read_text().splitlines()
    expected = {entry["_id"]: entry["text"] for entry in map(json.loads, lines)}
    assert len(collection.documents) == len(expected) == 2063
    with ThreadPoolExecutor(8) as threads:
        texts = list(threads.map(collection.documents.__getitem__, reversed(expected)))
    assert texts == list(reversed(expected.values()))
    assert list(collection.documents) == list(expected)
    assert collection.splits == ["dev", "test", "train"]
    assert len(collection.split_queries("test")) == 267


def test_a_title_stands_before_the_text(tmp_path: Path):
    documents = Collection.open(make_collection(tmp_path)).documents
    assert dict(documents) == {"d1": "one", "d2": "Two 2"}
    assert "d3" not in documents
    with pytest.raises(KeyError):
        documents["d3"]


def test_the_text_has_the_fields_that_are_asked_for(tmp_path: Path):
    make_collection(tmp_path)
    line = '{"_id": "d3", "title": "Three", "text": "3", "url": "http://3"}\n'
    (tmp_path / "corpus.jsonl").write_text(line)
    collection = Collection.open(tmp_path, document_text="url-title-body")
    assert collection.documents["d3"] == "http://3 Three 3"
    assert list(collection.documents.items()) == [("d3", "http://3 Three 3")]
    content = {"format": 1, "document_text": "body"}
    (tmp_path / "collection.json").write_text(json.dumps(content))
    assert Collection.open(tmp_path).documents["d3"] == "3"
    explicit = Collection.open(tmp_path, document_text="title-body")
    assert list(explicit.documents.values()) == ["Three 3"]
    assert "collection.json" in explicit.digest()


def test_queries_may_be_gzip_and_documents_not(tmp_path: Path):
    make_collection(tmp_path)
    queries, corpus = tmp_path / "queries.jsonl", tmp_path / "corpus.jsonl"
    (tmp_path / "queries.jsonl.gz").write_bytes(gzip.compress(queries.read_bytes()))
    queries.unlink()
    collection = Collection.open(tmp_path)
    assert collection.split_queries("dev") == {"q1": "first?"}
    assert "queries.jsonl.gz" in collection.digest()
    (tmp_path / "corpus.jsonl.gz").write_bytes(gzip.compress(corpus.read_bytes()))
    corpus.unlink()
    with pytest.raises(InputError, match=r"corpus\.jsonl\.gz: .*run `python -m jaxrank\.import_c"):
        Collection.open(tmp_path)


def test_a_folder_has_one_kind_of_documents(tmp_path: Path):
    make_collection(tmp_path)
    (tmp_path / "documents").mkdir()
    with pytest.raises(InputError, match=r"holds both documents/ and corpus\.jsonl; keep one"):
        Collection.open(tmp_path)


def test_a_bom_crlf_blank_lines_and_no_last_newline_are_read_over(tmp_path: Path):
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(
        b"\xef\xbb\xbf" + GOOD.replace(b"\n", b"\r\n") + b'\n\n{"_id": "d2", "text": "\xc3\xa9"}'
    )
    assert dict(JsonlDocuments(path)) == {"d1": "one", "d2": "é"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"_id": "d2", "text": ', "not valid JSON"),
        (b"[1]", "a JSON object is needed, got list"),
        (b'{"text": "x"}', r"'_id': has \['text'\]; a string is needed"),
        (b'{"_id": "d2"}', "'text': has"),
        (b'{"_id": "d2", "text": null}', "'text': got NoneType"),
        (b'{"_id": "d2", "text": "", "title": 3}', "'title': got int"),
        (b'{"_id": "d2", "text": "", "url": null}', "'url': got NoneType"),
        (b'{"_id": 2, "text": "x"}', "'_id': got int"),
        (b'{"_id": "d 2", "text": "x"}', "an id without blanks"),
        (b'{"_id": "", "text": "x"}', "an id without blanks"),
        (b'{"_id": "d1", "text": "x"}', "id 'd1' was there before"),
        (b'{"_id": "d2", "text": "\xff"}', "byte 24 of the line is not UTF-8"),
        (b'{"_id": "d2", "text": "\\ud83d"}', "half of a surrogate pair"),
    ],
)
def test_a_bad_document_is_named_by_file_and_line(tmp_path: Path, line: bytes, message: str):
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(GOOD + line + b"\n")
    with pytest.raises(InputError, match=rf"^.*corpus\.jsonl:2: .*{message}"):
        JsonlDocuments(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"_id": "q1", "text": "again"}', "id 'q1' was there before"),
        ('{"_id": "q2"}', "'text': has"),
        ("nonsense", "not valid JSON"),
    ],
)
def test_a_bad_query_is_named_by_file_and_line(tmp_path: Path, line: str, message: str):
    path = tmp_path / "queries.jsonl"
    path.write_text('{"_id": "q1", "text": "first"}\n' + line)
    with pytest.raises(InputError, match=rf"queries\.jsonl:2: .*{message}"):
        read_queries(path)


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl"])
def test_missing_and_empty_files_are_named(tmp_path: Path, name: str):
    make_collection(tmp_path)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=rf"{name}: no (documents|queries)"):
        Collection.open(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=rf"{name}: no such file"):
        Collection.open(tmp_path)


@pytest.mark.parametrize("qrels", ["qrels.dev.txt", "qrels/dev.tsv"])
def test_judgements_are_found_in_both_layouts(tmp_path: Path, qrels: str):
    collection = Collection.open(make_collection(tmp_path, qrels=qrels))
    assert collection.splits == ["dev"]
    assert collection.qrels("dev") == {"q1": {"d1": 1}}
    assert collection.split_queries("dev") == {"q1": "first?"}
    assert set(collection.digest()) == {"corpus.jsonl", "queries.jsonl", qrels}


def test_an_unknown_split_names_what_was_looked_for_and_what_is_there(tmp_path: Path):
    collection = Collection.open(make_collection(tmp_path))
    with pytest.raises(InputError, match=r"qrels\.test\.txt nor qrels/test\.tsv; .*there: dev"):
        collection.qrels_path("test")


def test_a_judged_query_without_text_is_refused(tmp_path: Path):
    collection = Collection.open(make_collection(tmp_path))
    (tmp_path / "qrels.dev.txt").write_text("q1 0 d1 1\nq9 0 d1 1\n")
    with pytest.raises(InputError, match=r"1 of 2 queries are not in .*'q9'"):
        collection.qrels("dev")


def test_a_corpus_that_changed_underneath_is_noticed(tmp_path: Path):
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(GOOD)
    documents = JsonlDocuments(path)
    path.write_bytes(GOOD.replace(b"d1", b"d7"))
    with pytest.raises(InputError, match="has changed since it was opened"):
        documents["d1"]
