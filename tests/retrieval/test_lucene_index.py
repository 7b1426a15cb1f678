"""Index folders: of which collection they are, and builds that do not reach their end."""

import json
import signal
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest

from jaxrank.data.collection import Collection
from jaxrank.errors import InputError
from jaxrank.retrieval import lucene_index
from jaxrank.retrieval.lucene import Lucene
from jaxrank.retrieval.lucene_index import (
    build_index,
    check_manifest,
    holds_index,
    read_manifest,
)
from tests.retrieval.small_collection import write_collection

DOCUMENTS = {"d1": "asthma", "d2": "acne", "blank": " \n", "d3": "gout", "empty": ""}

KILLED_BUILD = """
import sys, time
from pathlib import Path
from jaxrank.data.collection import Collection
from jaxrank.retrieval import lucene_index

def then_wait():
    print("all but the manifest", flush=True)
    time.sleep(60)

lucene_index.anserini_version = then_wait
lucene_index.build_index(Collection.open(sys.argv[1]), Path(sys.argv[2]), threads=1)
"""


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    return write_collection(tmp_path / "collection", DOCUMENTS)


def test_documents_without_text_are_counted(collection: Collection, tmp_path: Path) -> None:
    manifest = build_index(collection, tmp_path / "index", threads=2)
    assert (manifest.documents, manifest.indexed) == (5, 3)
    assert manifest == read_manifest(tmp_path / "index")
    assert len(Lucene(tmp_path / "index")) == 3
    check_manifest(tmp_path / "index", manifest, collection)


@pytest.mark.parametrize(
    ("documents", "difference"),
    [
        ({"d1": "asthma"}, "the index is of 5 documents, .* has 1"),
        (DOCUMENTS | {"d3": "goat"}, "the index is of other documents than .* though as many"),
    ],
)
def test_an_index_of_other_documents_is_refused(
    collection: Collection, tmp_path: Path, documents: dict[str, str], difference: str
) -> None:
    manifest = build_index(collection, tmp_path / "index", threads=1)
    changed = write_collection(tmp_path / "changed", documents)
    with pytest.raises(InputError, match=difference):
        check_manifest(tmp_path / "index", manifest, changed)


def test_an_index_of_other_fields_is_refused(collection: Collection, tmp_path: Path) -> None:
    manifest = build_index(collection, tmp_path / "index", threads=1)
    body = Collection.open(collection.folder, document_text="body")
    with pytest.raises(InputError, match="document_text title-body, asked for is body"):
        check_manifest(tmp_path / "index", manifest, body)


def test_new_queries_and_judgements_leave_the_index_valid(
    collection: Collection, tmp_path: Path
) -> None:
    manifest = build_index(collection, tmp_path / "index", threads=1)
    more = write_collection(collection.folder, DOCUMENTS, {"q": "asthma", "new": "gout"})
    check_manifest(tmp_path / "index", manifest, more)


def test_a_killed_build_leaves_no_index_and_the_next_one_succeeds(
    collection: Collection, tmp_path: Path
) -> None:
    index = tmp_path / "index"
    arguments = [sys.executable, "-c", KILLED_BUILD, str(collection.folder), str(index)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "all but the manifest\n"
        process.send_signal(signal.SIGKILL)
    assert not holds_index(index)
    (leftover,) = tmp_path.glob(".index.*.part")
    others = [tmp_path / ".index.of-another.12345678.part", tmp_path / ".an-index.12345678.part"]
    for folder in others:
        folder.mkdir()
    assert build_index(collection, index, threads=1).indexed == 3
    assert not leftover.exists()
    assert all(folder.exists() for folder in others)


def test_a_build_that_goes_on_is_left_alone(collection: Collection, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", KILLED_BUILD, str(collection.folder), str(tmp_path / "i")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "all but the manifest\n"
        with pytest.raises(InputError, match="another process is building this index; wait for"):
            build_index(collection, tmp_path / "i", threads=1)
        assert len(list(tmp_path.glob(".i.*.part"))) == 1
        assert build_index(collection, tmp_path / "other", threads=1).indexed == 3
        process.send_signal(signal.SIGKILL)


def test_a_failed_build_leaves_the_earlier_index(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = build_index(collection, tmp_path / "index", threads=1)
    # As if Lucene had dropped one, which it does when its disk is full.
    monkeypatch.setattr(lucene_index, "_batches", lambda documents: [list(documents)[:2]])
    with pytest.raises(InputError, match="Lucene took 2 of 5 documents"):
        build_index(collection, tmp_path / "index", threads=1)
    assert read_manifest(tmp_path / "index") == manifest
    assert len(Lucene(tmp_path / "index")) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".index.lock",
        "collection",
        "index",
    ]


def test_documents_without_any_text_are_refused(tmp_path: Path) -> None:
    collection = write_collection(tmp_path / "collection", {"d1": "", "d2": " "})
    with pytest.raises(InputError, match="no text to index in 2 documents"):
        build_index(collection, tmp_path / "index", threads=1)


def test_a_manifest_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "jaxrank-index.json").write_text(json.dumps({"format": 2}))
    with pytest.raises(InputError, match="made by another version"):
        read_manifest(tmp_path)


def test_texts_are_handed_over_in_bounded_batches() -> None:
    documents = [(str(number), "x" * 3_000_000) for number in range(3)]
    documents += [(str(number), "x") for number in range(3, 1_503)]
    batches = list(lucene_index._batches(documents))
    assert [len(batch) for batch in batches] == [2, 1_000, 501]
    assert list(chain(*batches)) == documents
