"""Stores that are not as they were written: what is found, what is refused, and what mends it."""

import logging
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jaxrank.errors import InputError
from jaxrank.ranking.document_states.disk.manifest import read_manifest
from jaxrank.ranking.document_states.disk.store import StateStore
from jaxrank.ranking.document_states.formats import StateDType
from jaxrank.ranking.document_states.states import DocumentStates
from tests.ranking.document_states.small_states import (
    BUDGET,
    IDENTITY,
    assert_records,
    content,
    names,
    new_store,
    record_of,
    shards,
)

NAMES = names(0, 8)


class Flipped:
    """A file with one bit turned over, in place, for as long as the block lasts."""

    def __init__(self, path: Path, position: int, bit: int) -> None:
        self._path, self._position, self._bit = path, position, bit

    def __enter__(self) -> None:
        self._flip()

    def __exit__(self, *error: object) -> None:
        self._flip()

    def _flip(self) -> None:
        handle = os.open(self._path, os.O_RDWR)
        (before,) = os.pread(handle, 1, self._position)
        os.pwrite(handle, bytes([before ^ 1 << self._bit]), self._position)
        os.close(handle)


def document_at(store: StateStore, path: Path, position: int) -> str | None:
    """Whose state has this byte of a shard; None in the shard's index."""
    (entry,) = (one for one in read_manifest(store.folder).shards if one.name == path.name)
    shard = store._reader._mapped(entry)
    found = [
        shard.document_id(place)
        for place in range(len(shard))
        for start, size in shard._ranges(place)
        if start <= position < start + size
    ]
    assert len(found) == (position >= entry.index_bytes)
    return found[0] if found else None


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("stride", [97, pytest.param(5, marks=pytest.mark.slow)])
def test_a_flipped_bit_anywhere_in_a_shard_is_found_and_never_read(
    dtype: StateDType, stride: int, tmp_path: Path
):
    store = new_store(tmp_path, NAMES, dtype=dtype)
    path = shards(tmp_path)[1]
    own = NAMES[4:]
    unverified = StateStore.open(tmp_path, verify=False)
    for position in range(0, path.stat().st_size, stride):
        document = document_at(store, path, position)
        with Flipped(path, position, position // stride % 8):
            (fault,) = store.verify()
            assert (fault.file, fault.document_id) == (path, document), position
            if document is None:
                with pytest.raises(InputError, match=f"{path.name}: damaged in its index"):
                    DocumentStates.open(tmp_path)
                continue
            with pytest.raises(InputError) as refusal:
                store.gather(own)
            assert str(refusal.value) == (
                f"{path}: document '{document}': its state is damaged: it does not have its "
                "checksum; take it out (python -m jaxrank.encode_documents mend --output "
                f"{tmp_path}) and encode it again"
            )
            assert len(store.records([name for name in own if name != document])) == 3
            assert len(unverified.records([document])) == 1
    assert store.verify() == []


@pytest.mark.parametrize(("stride", "bits"), [(3, 1), pytest.param(1, 8, marks=pytest.mark.slow)])
def test_a_flipped_bit_anywhere_in_the_manifest_is_found(stride: int, bits: int, tmp_path: Path):
    store = new_store(tmp_path, NAMES[:2], documents_per_shard=2)
    path, copy = tmp_path / "manifest.json", tmp_path / "manifest.copy.json"
    copied = copy.read_bytes()
    copy.unlink()
    for position in range(0, path.stat().st_size, stride):
        for bit in range(bits):
            with Flipped(path, position, (position + bit) % 8):
                (fault,) = store.verify()
                assert (fault.file, fault.document_id) == (path, None), position
                with pytest.raises(InputError, match=r"manifest\.json: .*; (delete|give)"):
                    DocumentStates.open(tmp_path)
    assert store.verify() == []
    copy.write_bytes(copied)
    # Other bytes that mean the same are other bytes too.
    path.write_text(path.read_text().replace('"format": 2', '"format":  2'))
    assert "damaged" in str(store.verify()[0])


@pytest.mark.parametrize("lost", [False, True])
def test_a_manifest_is_read_from_its_copy_and_mended_by_the_next_writer(
    lost: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    new_store(tmp_path, NAMES)
    path, copy = tmp_path / "manifest.json", tmp_path / "manifest.copy.json"
    right = path.read_bytes()
    assert copy.read_bytes() == right

    def damage(one: Path) -> None:
        if lost and one == path:
            one.unlink()
        else:
            one.write_bytes(right.replace(b"float32", b"float64", 1))

    for mend in (lambda states: states.append([]), lambda states: states.mend(states.folder)):
        damage(path)
        with caplog.at_level(logging.WARNING):
            store = DocumentStates.open(tmp_path)
        assert f"{path}: damaged or lost; {copy.name} is read in its place" in caplog.text
        assert_records(store.records(NAMES), NAMES, "float32")
        assert [str(fault) for fault in store.verify()] == [
            f"{path}: damaged or lost; python -m jaxrank.encode_documents mend --output {tmp_path} "
            f"writes it anew, from {copy.name}"
        ]
        mend(store)
        assert (path.read_bytes(), copy.read_bytes()) == (right, right)
    damage(copy)
    store = DocumentStates.open(tmp_path)
    assert [fault.file for fault in store.verify()] == [copy]
    damage(path)
    assert [fault.file for fault in store.verify()] == [path, copy]
    with pytest.raises(InputError, match=r"damaged|has no manifest"):
        DocumentStates.open(tmp_path)


def test_what_is_damaged_meanwhile_does_not_hide_what_went_wrong(tmp_path: Path):
    store = new_store(tmp_path, NAMES)

    def write() -> None:
        with store.writing():
            for name in ("manifest.json", "manifest.copy.json"):
                (tmp_path / name).write_bytes(b"")
            raise RuntimeError("what went wrong")

    with pytest.raises(RuntimeError, match="what went wrong"):
        write()


def test_a_damaged_document_is_mended_by_deleting_and_encoding_it(tmp_path: Path):
    store = new_store(tmp_path, NAMES)
    path = shards(tmp_path)[0]
    handle = os.open(path, os.O_RDWR)
    os.pwrite(handle, b"\xaa\x55", path.stat().st_size - 5)
    os.close(handle)
    ((_, damaged, what),) = store.verify()
    assert damaged == NAMES[3]
    assert "checksum" in what
    # Not passed off as sound by being written anew beside another that is deleted.
    store.delete([NAMES[0]])
    assert [fault.document_id for fault in store.verify()] == [damaged]
    with pytest.raises(InputError, match=f"document '{damaged}': its state is damaged"):
        store.records([damaged])
    store.delete([damaged])
    assert store.missing(NAMES) == [NAMES[0], NAMES[3]]
    store.append(record_of(name) for name in store.missing(NAMES))
    assert store.verify() == []
    assert_records(store.records(NAMES), NAMES, "float32")


@pytest.mark.parametrize("cut", [1, 500, None])
def test_a_shard_that_is_cut_or_missing_is_named_and_encoded_again(
    cut: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    store = new_store(tmp_path / "states", NAMES)
    path = shards(tmp_path / "states")[0]
    size = path.stat().st_size
    if cut is None:
        path.unlink()
        what = "not there; bring the file back, or take its documents out (python"
    else:
        os.truncate(path, size - cut)
        what = f"{size - cut} bytes; {size} were written; bring the file back"
    (fault,) = store.verify()
    assert str(fault).startswith(f"{path}: {what}")
    with pytest.raises(InputError, match=re.escape(what)):
        DocumentStates.open(tmp_path / "states")
    if cut is not None:
        with pytest.raises(InputError, match=re.escape(what)):
            store.records(NAMES[:1])
    # The file may come back, as from a copy that is still under way: nothing is given up unasked.
    before = content(tmp_path / "states")
    with pytest.raises(InputError) as refusal:
        StateStore.open_or_create(tmp_path / "states", IDENTITY, "float32", "float32")
    assert str(refusal.value) == (
        f"{tmp_path / 'states'}: 1 of 2 shards are missing, cut or damaged "
        "(shard-00000.safetensors); bring them back, or take their 4 documents out (python -m "
        f"jaxrank.encode_documents mend --output {tmp_path / 'states'}) and encode them again"
    )
    assert content(tmp_path / "states") == before
    with caplog.at_level(logging.WARNING):
        if cut == 1:
            assert StateStore.mend(tmp_path / "states") == 4
        store = StateStore.open_or_create(
            tmp_path / "states", IDENTITY, "float32", "float32", mend=True
        )
    assert f"{what}" in caplog.text
    assert "its 4 documents are left out" in caplog.text
    assert not path.exists()
    assert store.missing(NAMES) == NAMES[:4]
    store.append(record_of(name) for name in NAMES[:4])
    assert store.verify() == []
    assert_records(store.records(NAMES), NAMES, "float32")


@pytest.mark.parametrize(
    ("dtype", "name"),
    [("float32", "keys"), ("bfloat16", "recurrence"), ("int8", "recurrence.scale")],
)
@pytest.mark.parametrize("verify", [True, False])
def test_a_state_that_is_not_finite_is_refused_when_it_is_read(
    dtype: StateDType, name: str, verify: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    bad = record_of(NAMES[2], dtype)
    bad.arrays[name].reshape(-1)[-1] = np.nan
    store = new_store(tmp_path, NAMES[:1], dtype=dtype)
    with monkeypatch.context() as patch:  # as another program may have written it
        patch.setattr("jaxrank.ranking.document_states.disk.writing.check_record", lambda *_: None)
        store.append([bad])
    message = f"document 'dé-2': {name} has numbers that are not finite"
    with pytest.raises(InputError, match=message):
        StateStore.open(tmp_path, verify=verify).records([NAMES[0], NAMES[2]])
    assert [fault.document_id for fault in store.verify()] == [NAMES[2]]
    assert len(store.records(NAMES[:1])) == 1


def test_what_a_shard_says_otherwise_than_its_manifest_is_found(tmp_path: Path):
    store = new_store(tmp_path, NAMES)
    manifest = read_manifest(tmp_path)
    first, second = manifest.shards
    wrong = replace(first, documents=5)
    replace(manifest, shards=(wrong, second)).write(tmp_path)
    assert [str(fault) for fault in store.verify()] == [
        f"{tmp_path / first.name}: 4 documents; its manifest has 5"
    ]
    # As where several bits of a document are flipped and its checksum happens to be the same.
    replace(manifest, shards=(first, replace(second, sha256="0" * 64))).write(tmp_path)
    assert [str(fault) for fault in store.verify()] == [
        f"{tmp_path / second.name}: does not have its SHA-256; delete this file, and take its "
        f"documents out (python -m jaxrank.encode_documents mend --output {tmp_path})"
    ]
    budget = max(store.lengths(NAMES)) - 1
    small = replace(IDENTITY, document_budget=int(budget))
    replace(manifest, identity=small).write(tmp_path)
    faults = store.verify()
    assert {fault.what for fault in faults} == {
        f"{BUDGET} tokens; its store is made for {budget} at most"
    }
    (tmp_path / "shard-00002.safetensors").write_bytes((tmp_path / first.name).read_bytes())
    again = replace(first, name="shard-00002.safetensors")
    replace(manifest, shards=(first, second, again)).write(tmp_path)
    faults = store.verify()
    assert sorted(str(fault.document_id) for fault in faults) == NAMES[:4]
    assert {fault.what for fault in faults} == {f"is in {first.name} too"}
    assert {fault.file.name for fault in faults} == {again.name}


def test_all_faults_are_listed_and_not_the_first_alone(tmp_path: Path):
    store = new_store(tmp_path, names(0, 12))
    first, second, third = shards(tmp_path)
    first.unlink()
    for entry in read_manifest(tmp_path).shards[1:]:
        for position in (entry.index_bytes, entry.bytes - 1):
            Flipped(tmp_path / entry.name, position, 0).__enter__()
    assert [fault.file for fault in store.verify()] == [first, second, second, third, third]
