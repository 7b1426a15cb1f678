from pathlib import Path

import pytest

from jaxrank.data.document_text import DocumentFields
from jaxrank.data.importing.layouts.beir import CorpusLines
from jaxrank.data.importing.layouts.collection_source import gather_queries
from jaxrank.data.importing.layouts.detect import open_source
from jaxrank.errors import InputError
from tests.data.layout_files import DOCUMENT_FILES, documents, splits, write_files


@pytest.mark.parametrize("packed", [False, True])
def test_a_beir_folder_is_read_with_urls_and_both_kinds_of_judgements(tmp_path: Path, packed: bool):
    files = {
        "corpus.jsonl": b'{"_id": "a", "title": "A", "text": "x", "url": "u", "metadata": {}}\n'
        b'\n{"_id": "b", "text": ""}\n',
        "queries.jsonl": b'{"_id": "q", "text": "why?"}\n',
        "qrels/test.tsv": b"query-id\tcorpus-id\tscore\nq\ta\t2\n",
        "qrels.dev.txt": b"q 0 b 1\n",
    }
    source = open_source(str(write_files(tmp_path, files, packed=packed)))
    assert (source.layout, source.document_text) == ("beir", "title-body")
    assert documents(source) == {"a": DocumentFields("x", "A", "u"), "b": DocumentFields("")}
    assert gather_queries(source.queries) == {"q": "why?"}
    assert splits(source) == {"dev": {"q": {"b": 1}}, "test": {"q": {"a": 2}}}


def test_one_split_in_two_files_is_refused(tmp_path: Path):
    names = ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv", "qrels.test.txt")
    write_files(tmp_path, dict.fromkeys(names, b""))
    with pytest.raises(InputError, match=r"test\.tsv: split 'test' is in .*qrels\.test\.txt too"):
        open_source(str(tmp_path))


def test_a_bad_line_of_a_corpus_is_named(tmp_path: Path):
    with pytest.raises(InputError, match=r"here: '_id': got int"):
        CorpusLines(tmp_path / "corpus.jsonl").parse(b'{"_id": 1, "text": ""}', "here")


def test_detection_names_what_it_looked_for(tmp_path: Path):
    with pytest.raises(
        InputError, match=r"none of msmarco-docs\.tsv .*collection\.tsv .*corpus\.jsonl \(beir\)"
    ):
        open_source(str(tmp_path))
    with pytest.raises(InputError, match="no such folder; an id of ir_datasets begins with"):
        open_source(str(tmp_path / "nothing"))
    write_files(tmp_path, DOCUMENT_FILES | {"collection.tsv": b""})
    with pytest.raises(InputError, match="files of msmarco-document and of msmarco-passage; say"):
        open_source(str(tmp_path))
    assert open_source(str(tmp_path), "msmarco-passage").layout == "msmarco-passage"
    with pytest.raises(InputError, match=r"corpus\.jsonl: no such file, nor corpus\.jsonl\.gz"):
        open_source(str(tmp_path), "beir")


def test_a_file_that_is_there_plain_and_packed_is_refused(tmp_path: Path):
    files = {"corpus.jsonl": b'{"_id": "a", "text": "x"}\n', "qrels/test.tsv": b""}
    write_files(tmp_path, files | {"queries.jsonl": b'{"_id": "q", "text": "why?"}\n'})
    (tmp_path / "corpus.jsonl.gz").write_bytes(b"")
    with pytest.raises(InputError, match=r"corpus\.jsonl and corpus\.jsonl\.gz are both there; r"):
        open_source(str(tmp_path))
