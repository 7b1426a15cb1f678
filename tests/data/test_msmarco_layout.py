import gzip
from pathlib import Path

import pytest

from jaxrank.data.document_store.store import DocumentStore
from jaxrank.data.document_store.writer import build_store
from jaxrank.data.document_text import DocumentFields
from jaxrank.data.importing.layouts.collection_source import gather_queries
from jaxrank.data.importing.layouts.detect import open_source
from jaxrank.data.importing.layouts.msmarco import (
    DocumentLines,
    PassageLines,
    check_lookup,
    read_tsv_queries,
)
from jaxrank.errors import InputError
from tests.data.layout_files import DOCUMENT_FILES, documents, splits, write_files


@pytest.mark.parametrize("packed", [False, True])
def test_msmarco_documents_come_with_all_their_splits(tmp_path: Path, packed: bool):
    source = open_source(str(write_files(tmp_path, DOCUMENT_FILES, packed=packed)))
    assert (source.layout, source.document_text) == ("msmarco-document", "url-title-body")
    assert documents(source) == {
        "D1": DocumentFields("first body", "One", "http://one"),
        "D2": DocumentFields("second"),
    }
    assert gather_queries(source.queries) == {
        "1": "first?",
        "2": "second?",
        "3": "third?",
        "4": "fourth?",
        "5": "not judged",
        "6": "sixth?",
    }
    assert splits(source) == {
        "train": {"1": {"D1": 1}, "2": {"D2": 1}},
        "dev": {"3": {"D2": 1}},
        "dl19": {"4": {"D1": 3, "D2": 0}},
        "dl20": {"6": {"D2": -1}},
    }
    assert len(source.files) == 9
    assert source.notes == ()


def test_msmarco_passages_come_with_the_small_dev_set(tmp_path: Path):
    files = {
        "collection.tsv": b"0\tfirst passage\n1\tsecond passage\n",
        "queries.train.tsv": b"1\tfirst?\n",
        "qrels.train.tsv": b"1\t0\t0\t1\n",
        "queries.dev.small.tsv": b"2\tsecond?\n",
        "qrels.dev.small.tsv": b"2\t0\t1\t1\n",
        "queries.dev.tsv": b"broken",
        "msmarco-test2019-queries.tsv": b"3\tthird?\n",
        "2019qrels-pass.txt": b"3 Q0 1 2\n",
    }
    source = open_source(str(write_files(tmp_path, files)))
    assert (source.layout, source.document_text) == ("msmarco-passage", "body")
    assert documents(source) == {
        "0": DocumentFields("first passage"),
        "1": DocumentFields("second passage"),
    }
    assert splits(source) == {
        "train": {"1": {"0": 1}},
        "dev": {"2": {"1": 1}},
        "dl19": {"3": {"1": 2}},
    }
    assert len(source.notes) == 1
    assert source.notes[0].startswith(
        "split dl20 is left out: msmarco-test2020-queries.tsv and 2020qrels-pass.txt not in"
    )


def test_a_split_without_its_judgements_is_left_out_and_named(tmp_path: Path):
    files = {name: text for name, text in DOCUMENT_FILES.items() if name != "2019qrels-docs.txt"}
    source = open_source(str(write_files(tmp_path, files)))
    assert set(source.qrels) == {"train", "dev", "dl20"}
    assert source.notes == (f"split dl19 is left out: 2019qrels-docs.txt not in {tmp_path}",)
    assert "4" not in gather_queries(source.queries)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'a "quoted, "" body', 'a "quoted, "" body'),
        (b'"', '"'),
        ("a\u2028b\u2029c".encode(), "a\u2028b\u2029c"),
        ("a\x85b\x0bc\x0cd\x1ce".encode(), "a\x85b\x0bc\x0cd\x1ce"),
        (b"a\rb", "a\rb"),
        (b"  a  ", "  a  "),
        (b"a\r", "a"),
        (b"", ""),
        (b"a\x00b", "a\x00b"),
        ("é 漢 🙂".encode(), "é 漢 🙂"),
    ],
)
def test_only_tabs_and_newlines_separate(tmp_path: Path, body: bytes, expected: str):
    path = tmp_path / "msmarco-docs.tsv"
    path.write_bytes(b"\xef\xbb\xbfD1\tu\t" + body + b"\t" + body + b"\nD2\tu\tt\tlast")
    build_store(tmp_path / "store", DocumentLines(path))
    store = DocumentStore.open(tmp_path / "store")
    title = body.decode()  # behind which no line ends
    assert store.fields("D1") == DocumentFields(expected, title, "u")
    assert store.fields("D2") == DocumentFields("last", "t", "u")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"D2\tu\tt", "3 columns; id, url, title, body with tabs between are needed"),
        (b"D2\tu\tt\tb\tmore", "5 columns; id, url"),
        (b"D2 u t b", "1 columns; id, url"),
        (b"\tu\tt\tb", "id: got ''; an id without blanks"),
        (b"D 2\tu\tt\tb", "id: got 'D 2'; an id without blanks"),
        (b"D2\tu\tt\t\xff", "byte 8 of the line is not UTF-8"),
    ],
)
def test_a_malformed_document_is_named_by_file_and_line(tmp_path: Path, line: bytes, message: str):
    path = tmp_path / "msmarco-docs.tsv"
    path.write_bytes(b"D1\tu\tt\tb\n" + line + b"\n")
    with pytest.raises(InputError, match=rf"^{path}:2: {message}"):
        build_store(tmp_path / "store", DocumentLines(path))


def test_a_passage_needs_two_columns(tmp_path: Path):
    with pytest.raises(InputError, match="here: 3 columns; id, text with tabs"):
        PassageLines(tmp_path / "collection.tsv").parse(b"0\ta\tb\n", "here")


def test_a_broken_gzip_is_named(tmp_path: Path):
    path = tmp_path / "msmarco-docs.tsv.gz"
    path.write_bytes(gzip.compress(b"D1\tu\tt\tb\n" * 9)[:-9])
    with pytest.raises(InputError, match=r"msmarco-docs\.tsv\.gz:\d+: broken gzip"):
        build_store(tmp_path / "store", DocumentLines(path))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2", "1 columns; id, text with tabs between"),
        ("2\ta\tb", "3 columns; id, text"),
        ("2 \ta", "id: got '2 '"),
        ("2\t ", "query '2' has no text"),
    ],
)
def test_a_malformed_query_is_named_by_file_and_line(tmp_path: Path, line: str, message: str):
    path = tmp_path / "queries.tsv"
    path.write_text(f"1\tfirst\n{line}\n")
    with pytest.raises(InputError, match=rf"queries\.tsv:2: {message}"):
        list(read_tsv_queries(path))


def test_a_query_with_two_texts_is_refused_with_both_places(tmp_path: Path):
    files = DOCUMENT_FILES | {"msmarco-docdev-queries.tsv": b"3\tthird?\n2\tanother\n"}
    source = open_source(str(write_files(tmp_path, files)))
    with pytest.raises(
        InputError,
        match=r"docdev-queries\.tsv:2: query '2' has another text than at .*train-queries\.tsv:2;",
    ):
        gather_queries(source.queries)


def lookup_lines(path: Path) -> list[str]:
    lines, offset = [], 0
    for line in path.read_bytes().splitlines(keepends=True):
        lines.append(f"{line.split(bytes([9]))[0].decode()}\t{offset + 17}\t{offset}\n")
        offset += len(line)
    return lines


def test_documents_are_checked_against_their_lookup(tmp_path: Path):
    path, lookup = tmp_path / "msmarco-docs.tsv", tmp_path / "msmarco-docs-lookup.tsv"
    path.write_text("".join(f"D{number}\tu\té\tbody {number}\n" for number in range(12)))
    build_store(tmp_path / "store", DocumentLines(path))
    store = DocumentStore.open(tmp_path / "store")
    lines = lookup_lines(path)
    lookup.write_text("".join(reversed(lines)))
    check_lookup(lookup, store, progress=False)
    for changed, message in (
        ([*lines[:3], lines[3].replace("\t", "\t1", 2), *lines[4:]], ":4: document 'D3' begins at"),
        ([*lines, "D99\t0\t0\n"], ":13: document 'D99' is not there; msmarco-docs.tsv or"),
        (lines[:-1], ": lists 11 documents, 12 are there"),
        (["D0\t0\n"], ":1: 2 columns; id, TREC offset, TSV offset"),
    ):
        lookup.write_text("".join(changed))
        with pytest.raises(InputError, match=rf"lookup\.tsv{message}"):
            check_lookup(lookup, store, progress=False)
