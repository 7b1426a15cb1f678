"""What is read from a store, and what of it is checked when it is opened."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jaxrank.data.document_store.store import DocumentStore
from jaxrank.data.hashing import hash_text
from jaxrank.errors import InputError
from tests.data.small_store import (
    EXPECTED,
    NUM_DOCUMENTS,
    StoppedError,
    as_lines,
    build,
    content,
    write_source,
)


@pytest.fixture
def source_path(tmp_path: Path) -> Path:
    return write_source(tmp_path)


def test_every_document_is_read_back_by_id_and_in_order(tmp_path: Path, source_path: Path):
    manifest = build(tmp_path / "store", source_path)
    assert len(manifest.shards) > 2
    store = DocumentStore.open(tmp_path / "store", verify=True)
    assert len(store) == NUM_DOCUMENTS
    assert list(store) == list(EXPECTED)
    assert list(store.iter_fields()) == list(EXPECTED.items())
    assert {name: store.fields(name) for name in reversed(EXPECTED)} == EXPECTED
    texts = {name: store[name] for name in EXPECTED}
    assert list(store.items()) == list(texts.items())
    assert list(store.values()) == list(texts.values())
    assert "D1" in store
    assert "D40" not in store
    for read in (store.fields, store.__getitem__, store.fingerprint):
        with pytest.raises(KeyError, match="D40"):
            read("D40")


def test_the_text_has_the_fields_of_the_choice(tmp_path: Path, source_path: Path):
    build(tmp_path / "store", source_path)
    store = DocumentStore.open(tmp_path / "store", document_text="url-title-body")
    body = EXPECTED["D1"].body
    assert store["D1"] == f"https://example.org/1 Title é 1 {body}"
    assert store["D10"] == f"https://example.org/10 {EXPECTED['D10'].body}"
    assert DocumentStore.open(tmp_path / "store", document_text="body")["D1"] == body


def test_fingerprints_are_those_of_the_bodies(tmp_path: Path, source_path: Path):
    copy = {"copy": EXPECTED["D3"]._replace(title="Another", url="")}
    source_path.write_bytes(as_lines(EXPECTED | copy))
    build(tmp_path / "store", source_path)
    store = DocumentStore.open(tmp_path / "store")
    assert store.fingerprint("copy") == store.fingerprint("D3") != store.fingerprint("D4")
    assert store.fingerprint("D7") == hash_text(EXPECTED["D7"].body)


def test_a_flipped_bit_in_any_file_is_found_and_named(tmp_path: Path, source_path: Path):
    build(tmp_path / "store", source_path)
    names = set(content(tmp_path / "store")) - {".lock"}
    assert {"manifest.json", "00000.arrow", "id-hashes.npy", "id-rows.npy"} <= names
    for name in names:
        path = tmp_path / "store" / name
        good = path.read_bytes()
        middle = len(good) // 2
        path.write_bytes(good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :])
        with pytest.raises(InputError, match=name):
            DocumentStore.open(tmp_path / "store", verify=True)
        path.write_bytes(good)
    DocumentStore.open(tmp_path / "store").verify()


def test_a_changed_count_in_the_manifest_is_found(tmp_path: Path, source_path: Path):
    build(tmp_path / "store", source_path)
    path = tmp_path / "store" / "manifest.json"
    content = path.read_text()
    assert '"empty_titles": 4' in content
    path.write_text(content.replace('"empty_titles": 4', '"empty_titles": 5'))
    with pytest.raises(InputError, match=r"manifest\.json: damaged"):
        DocumentStore.open(tmp_path / "store")


@pytest.mark.parametrize("name", ["00001.arrow", "id-rows.npy"])
def test_missing_and_cut_files_are_named_when_a_store_is_opened(
    tmp_path: Path, source_path: Path, name: str
):
    build(tmp_path / "store", source_path)
    path = tmp_path / "store" / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=rf"{name}: \d+ bytes; \d+ bytes are needed"):
        DocumentStore.open(tmp_path / "store")
    path.unlink()
    mend = rf"delete {tmp_path / 'store'} and run the same import again"
    with pytest.raises(InputError, match=rf"{name}: not there.*; {mend}$"):
        DocumentStore.open(tmp_path / "store")
    (tmp_path / "store" / "manifest.json").unlink()
    with pytest.raises(InputError, match=rf"manifest\.json: no such file; {mend}$"):
        DocumentStore.open(tmp_path / "store")


def test_an_unfinished_store_is_refused_with_the_way_on(tmp_path: Path, source_path: Path):
    with pytest.raises(StoppedError):
        build(tmp_path / "store", source_path, stop=30)
    with pytest.raises(InputError, match="unfinished; run the same import again"):
        DocumentStore.open(tmp_path / "store")


def test_ids_that_share_a_hash_are_told_apart(
    tmp_path: Path, source_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for module in ("index", "writer"):
        monkeypatch.setattr(
            f"jaxrank.data.document_store.{module}.hash_text", lambda name: len(name) % 2
        )
    build(tmp_path / "store", source_path)
    store = DocumentStore.open(tmp_path / "store")
    assert {name: store.fields(name) for name in EXPECTED} == EXPECTED
    assert "D40" not in store
    source_path.write_bytes(source_path.read_bytes() + b"D15\t\t\tagain\n")
    with pytest.raises(InputError, match=r"tsv:41: id 'D15' was there before, on line 16; each"):
        build(tmp_path / "other", source_path)


def test_readers_in_threads_and_in_other_processes_see_the_same(tmp_path: Path, source_path: Path):
    build(tmp_path / "store", source_path)
    store = DocumentStore.open(tmp_path / "store", document_text="body")
    names = [*EXPECTED, *reversed(EXPECTED)] * 20
    with ThreadPoolExecutor(8) as threads:
        texts = list(threads.map(store.__getitem__, names))
    assert texts == [EXPECTED[name].body for name in names]
    again = pickle.loads(pickle.dumps(store))
    assert dict(again) == dict(store)
    assert again.digest() == store.digest()


def test_empty_fields_are_kept_and_counted(tmp_path: Path, source_path: Path):
    source_path.write_bytes(as_lines(EXPECTED) + b"E1\t\t\t\r\nE2\tu\tt\t \r\n")
    reached = build(tmp_path / "store", source_path).reached
    assert (reached.empty_titles, reached.empty_bodies) == (5, 2)
    assert DocumentStore.open(tmp_path / "store")["E1"] == ""
