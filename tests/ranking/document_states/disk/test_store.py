import errno
import logging
import os
import pickle
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxrank.errors import InputError
from jaxrank.models.states import StateArray
from jaxrank.ranking.document_states.disk.folder import check_folder
from jaxrank.ranking.document_states.disk.reading import read_snapshot
from jaxrank.ranking.document_states.disk.shards import documents_per_shard
from jaxrank.ranking.document_states.disk.store import StateStore
from jaxrank.ranking.document_states.formats import StateDType
from jaxrank.ranking.document_states.states import DocumentStates
from tests.ranking.document_states.small_states import (
    BUDGET,
    IDENTITY,
    assert_gathered,
    assert_records,
    content,
    length_of,
    names,
    new_store,
    record_of,
    shards,
    text_hash_of,
)

NAMES = names(0, 10)


def test_documents_go_into_shards_of_a_fixed_number(tmp_path: Path):
    store = new_store(tmp_path, NAMES)
    assert [path.name for path in shards(tmp_path)] == [
        f"shard-0000{number}.safetensors" for number in range(3)
    ]
    store.append([record_of("more")])
    assert len(shards(tmp_path)) == 4
    again = DocumentStates.open(tmp_path)
    assert list(again.document_ids) == [*NAMES, "more"]
    assert again.document_ids[2:4] == NAMES[2:4]
    assert again.documents_per_shard == store.documents_per_shard == 4
    assert_records(again.records([*NAMES, "more"]), [*NAMES, "more"], "float32")


def test_a_shard_of_mamba_130m_takes_about_256_mib():
    specs = (
        StateArray("convolution", (24, 3, 1536), quantised=False),
        StateArray("recurrence", (24, 1536, 16)),
    )
    assert documents_per_shard(specs, "bfloat16", 512) == 2**28 // 1_400_832
    keys = (StateArray("keys", (24, 12, 64), per_token=True),)
    assert documents_per_shard(keys, "float32", 512) == 2**28 // (24 * 512 * 12 * 64 * 4)
    assert documents_per_shard(keys, "float32", 2**20) == 1
    assert documents_per_shard((StateArray("recurrence", (1, 1)),), "int8", 1) == 1024


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_a_shard_is_read_by_the_safetensors_library_too(dtype: StateDType, tmp_path: Path):
    new_store(tmp_path, NAMES[:4], dtype=dtype)
    (shard,) = shards(tmp_path)
    tensors = load_file(shard)
    ends = tensors["documents.id_ends"].tolist()
    ids = tensors["documents.ids"].tobytes()
    starts = [0, *ends[:-1]]
    found = [ids[start:end].decode() for start, end in zip(starts, ends, strict=True)]
    assert found == NAMES[:4]
    assert tensors["documents.text_hashes"].tolist() == list(map(text_hash_of, NAMES[:4]))
    assert tensors["documents.lengths"].tolist() == [length_of(name) for name in NAMES[:4]]
    records = [record_of(name, dtype).arrays for name in NAMES[:4]]
    for name in records[0]:
        if name.startswith(("keys", "values")):
            wanted = np.concatenate(
                [record[name].reshape(-1, *record[name].shape[2:]) for record in records]
            )
        else:
            wanted = np.stack([record[name] for record in records])
        assert tensors[f"state.{name}"].dtype == wanted.dtype
        np.testing.assert_array_equal(tensors[f"state.{name}"], wanted)


def test_every_number_lies_at_a_multiple_of_its_size(tmp_path: Path):
    identity = replace(
        IDENTITY, arrays=(StateArray("odd", (1, 3)), StateArray("kept", (1, 1), quantised=False))
    )
    store = new_store(tmp_path, NAMES[:3], dtype="int8", identity=identity)
    found: list[bool] = []
    store.visit(
        NAMES[:3],
        lambda _, record: found.extend(array.flags.aligned for array in record.arrays.values()),
    )
    assert found == [True] * 9


def test_a_store_goes_on_where_it_was_left(tmp_path: Path):
    whole = new_store(tmp_path / "whole", NAMES)
    parts = new_store(tmp_path / "parts", NAMES[:8])
    parts = StateStore.open_or_create(tmp_path / "parts", IDENTITY, "float32", "float32")
    assert parts.missing([*NAMES, *NAMES][::-1]) == NAMES[:7:-1]
    parts.append(record_of(name) for name in parts.missing(NAMES))
    assert content(tmp_path / "parts") == content(tmp_path / "whole")
    assert whole.missing(NAMES) == []


def test_nothing_is_appended_twice(tmp_path: Path):
    store = new_store(tmp_path, NAMES[:5])
    before = content(tmp_path)
    for again in ([record_of(NAMES[3])], [record_of("new"), record_of("new")]):
        message = f"document '{again[-1].document_id}' is there already; each is needed once"
        with pytest.raises(InputError, match=message):
            store.append(again)
        assert content(tmp_path) == before


def test_what_comes_before_a_bad_shard_is_kept(tmp_path: Path):
    store = new_store(tmp_path)
    bad = record_of(NAMES[5])
    bad.arrays["recurrence"][0, 0, 0] = np.nan
    with pytest.raises(InputError, match="document 'dé-5': recurrence of its state"):
        store.append([*(record_of(name) for name in NAMES[:5]), bad])
    assert list(DocumentStates.open(tmp_path).document_ids) == NAMES[:4]
    assert store.verify() == []


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_deleted_documents_are_gone_and_so_are_their_bytes(dtype: StateDType, tmp_path: Path):
    store = new_store(tmp_path, NAMES, dtype=dtype)
    before = sum(path.stat().st_size for path in shards(tmp_path))
    gone = [NAMES[1], *NAMES[4:8]]  # of the first shard, and the whole second
    left = [name for name in NAMES if name not in gone]
    store.records(NAMES)
    store.delete([*gone, gone[0]])
    # What is mapped is not given back by the system.
    assert f"{tmp_path}/shard-00000" not in Path("/proc/self/maps").read_text()
    assert [path.name for path in shards(tmp_path)] == [
        "shard-00002.safetensors",
        "shard-00003.safetensors",
    ]
    assert sum(path.stat().st_size for path in shards(tmp_path)) < before * 0.7
    for states in (store, DocumentStates.open(tmp_path)):
        assert list(states.document_ids) == left
        assert states.missing(NAMES) == gone
        assert_gathered(states.gather(left), left, dtype)
        assert states.text_hashes(left).tolist() == list(map(text_hash_of, left))
        with pytest.raises(InputError, match=f"no state of document '{gone[0]}'"):
            states.records([gone[0]])
    assert store.verify() == []
    store.append(record_of(name, dtype) for name in gone)
    assert_gathered(store.gather(NAMES), NAMES, dtype)
    store.delete(NAMES)
    assert shards(tmp_path) == []
    assert len(DocumentStates.open(tmp_path)) == 0
    assert store.nbytes == 0


def test_deleting_what_is_not_there_changes_nothing(tmp_path: Path):
    store = new_store(tmp_path, NAMES)
    before = content(tmp_path)
    with pytest.raises(InputError, match="no state of document 'x'"):
        store.delete([NAMES[0], "x"])
    assert content(tmp_path) == before


def test_readers_go_on_with_what_they_have_opened(tmp_path: Path):
    store = new_store(tmp_path, NAMES)
    early, late = DocumentStates.open(tmp_path), DocumentStates.open(tmp_path)
    early.records(NAMES)
    store.append([record_of("more")])
    store.delete(NAMES[:1])
    assert_records(early.records(NAMES), NAMES, "float32")
    assert_records(late.records(NAMES[4:]), NAMES[4:], "float32")
    with pytest.raises(InputError, match="documents were deleted since it was opened; open it"):
        late.records(NAMES[:4])
    late.refresh()
    assert list(late.document_ids) == [*NAMES[1:], "more"]
    assert_records(late.records(NAMES[1:]), NAMES[1:], "float32")


def test_no_name_of_a_shard_comes_twice(tmp_path: Path):
    store = new_store(tmp_path, NAMES[:4])
    reader = DocumentStates.open(tmp_path)
    store.delete(NAMES[:4])
    store.append(record_of(name) for name in NAMES[4:8])
    store.append(record_of(name) for name in NAMES[8:])
    assert [path.name for path in shards(tmp_path)] == [
        "shard-00001.safetensors",
        "shard-00002.safetensors",
    ]
    with pytest.raises(InputError, match="open it again"):
        reader.records(NAMES[:1])


def test_a_store_that_was_made_anew_is_not_read_with_the_old_index(tmp_path: Path):
    new_store(tmp_path, NAMES[:4])
    reader = DocumentStates.open(tmp_path)
    for path in tmp_path.iterdir():
        path.unlink()
    store = new_store(tmp_path, [])
    same_length = [record_of(name)._replace(document_id=name[::-1]) for name in NAMES[:4]]
    store.append(same_length)
    with pytest.raises(InputError, match="open it again"):
        reader.records(NAMES[:1])


def test_a_store_may_be_sent_to_another_process(tmp_path: Path):
    new_store(tmp_path, NAMES)
    sent = pickle.loads(pickle.dumps(StateStore.open(tmp_path, verify=False)))
    assert_records(sent.records(NAMES), NAMES, "float32")
    assert sent._verify is False


def test_few_shards_are_open_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("jaxrank.ranking.document_states.disk.reading._MOST_OPEN_SHARDS", 5)
    new_store(tmp_path, names(0, 40), documents_per_shard=1)
    store = DocumentStates.open(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    wanted = names(0, 40)[::-1]
    counts: list[int] = []
    store.visit(wanted, lambda *_: counts.append(len(os.listdir("/proc/self/fd")) - before))
    assert 0 < max(counts) <= 5
    assert_records(store.records(wanted), wanted, "float32")
    assert_gathered(store.gather(wanted), wanted, "float32")
    assert 0 < len(os.listdir("/proc/self/fd")) - before <= 5


def test_ids_with_one_hash_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("jaxrank.ranking.document_states.disk.index.hash_text", lambda text: 7)
    store = new_store(tmp_path, NAMES)
    assert_records(store.records(NAMES[::-1]), NAMES[::-1], "float32")
    assert store.missing(["x", NAMES[3]]) == ["x"]
    assert store.verify() == []


def test_a_full_disk_is_told_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    store = new_store(tmp_path, NAMES[:8])
    before = content(tmp_path)
    room = iter(())

    def full(handle: int) -> None:
        if next(room, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for num_files, name in ((0, "shard-00002.safetensors"), (1, "manifest.json")):
            for change in (
                lambda: store.append([record_of("new")]),
                lambda: store.delete(NAMES[:1]),
            ):
                room = iter(range(num_files))
                with pytest.raises(InputError) as refusal:
                    change()
                assert str(refusal.value) == (
                    f"{tmp_path / name}: No space left on device; the store is as it was before "
                    "this file: make room and do the same again, which goes on from there"
                )
                assert content(tmp_path) == before
        # For all but the second copy of the manifest, without which a store is whole.
        room = iter(range(2))
        with caplog.at_level(logging.WARNING):
            store.append([record_of("new")])
    assert f"{tmp_path}/manifest.copy.json: No space left on device; it is written" in caplog.text
    assert "manifest.copy.json" not in content(tmp_path)
    assert_records(store.records([*NAMES[:8], "new"]), [*NAMES[:8], "new"], "float32")
    store.append([record_of("newer")])
    assert store.verify() == []
    files = content(tmp_path)
    assert files["manifest.copy.json"] == files["manifest.json"]


class Said(logging.Handler):
    """Lets others wait for a message."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        self.any = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
        self.any.set()


def test_a_second_writer_waits_and_says_so(tmp_path: Path):
    first = new_store(tmp_path)
    said = Said()
    left: list[str] = []

    def write() -> None:
        second = DocumentStates.open(tmp_path)
        with second.writing():
            left.extend(second.missing(NAMES))
            second.append(record_of(name) for name in left)

    logging.getLogger("jaxrank").addHandler(said)
    try:
        with first.writing():
            first.append(record_of(name) for name in NAMES[:4])
            thread = threading.Thread(target=write)
            thread.start()
            assert said.any.wait(timeout=60)
            first.append(record_of(name) for name in NAMES[4:8])
        thread.join()
    finally:
        logging.getLogger("jaxrank").removeHandler(said)
    assert said.messages == [f"{tmp_path}: another process writes into it; waiting for it"]
    assert left == NAMES[8:]
    assert DocumentStates.open(tmp_path).missing(NAMES) == []


def test_other_states_are_refused(tmp_path: Path):
    new_store(tmp_path, NAMES[:2])
    with pytest.raises(InputError, match="holds document states already"):
        new_store(tmp_path)
    wanted = replace(IDENTITY, document_budget=BUDGET + 1)
    with pytest.raises(InputError, match=r"made for another max_length .*: document budget 9"):
        StateStore.open_or_create(tmp_path, wanted, "float32", "float32")
    for dtype, computed_in in (("int8", "float32"), ("float32", "bfloat16")):
        with pytest.raises(
            InputError,
            match=f"in float32 computed in float32, not {dtype} computed in {computed_in}; go on",
        ):
            StateStore.open_or_create(tmp_path, IDENTITY, dtype, computed_in)
    with pytest.raises(ValueError, match="documents_per_shard: got 0"):
        new_store(tmp_path / "other", documents_per_shard=0)


def go_on(folder: Path) -> StateStore:
    return StateStore.open_or_create(folder, IDENTITY, "float32", "float32")


def test_a_store_for_another_model_is_not_opened_and_what_differs_is_named(tmp_path: Path):
    new_store(tmp_path, NAMES[:2])
    for changes, named in (
        ({"weights": "c" * 64}, "weights aaaaaaaaaaaa, the model has cccccccccccc"),
        ({"template": "plain"}, "template 'document-first', the model has 'plain'"),
        ({"document_budget": 480}, "document budget 9 tokens, the model has 480"),
    ):
        with pytest.raises(InputError, match=f"{tmp_path}: its states .* another .*: {named};"):
            DocumentStates.open(tmp_path, made_for=replace(IDENTITY, **changes))
    assert len(DocumentStates.open(tmp_path, made_for=IDENTITY)) == 2


def test_an_open_store_does_not_become_another(tmp_path: Path):
    store = new_store(tmp_path, NAMES[:2])
    for path in tmp_path.iterdir():
        path.unlink()
    new_store(tmp_path, dtype="int8")
    with pytest.raises(
        InputError,
        match="holds states in int8 computed in float32 by now, not float32 computed in float32 as "
        "when it was opened; open it again",
    ):
        store.refresh()


def test_any_text_may_be_an_id(tmp_path: Path):
    ids = ["", "a\nb", "\0", " x ", "x", "\u2028", "e\u0301", "\u00e9"]
    store = new_store(tmp_path, ids, documents_per_shard=3)
    for states in (store, DocumentStates.open(tmp_path)):
        assert list(states.document_ids) == ids
        assert_records(states.records(ids[::-1]), ids[::-1], "float32")
    assert store.verify() == []


def test_what_is_appended_is_found_as_by_an_index_made_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(  # so that some have the same hash
        "jaxrank.ranking.document_states.disk.index.hash_text",
        lambda text: len(text) + ord(text[-1]),
    )
    store = new_store(tmp_path, names(0, 30), documents_per_shard=7)
    grown, whole = store._snapshot.index, read_snapshot(tmp_path).index
    np.testing.assert_array_equal(grown._order, whole._order)
    np.testing.assert_array_equal(grown._hashes, whole._hashes)
    np.testing.assert_array_equal(grown.starts, whole.starts)
    for one, other in zip(grown.columns, whole.columns, strict=True):
        np.testing.assert_array_equal(one, other)


def test_folders_of_something_else_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="a folder of document states is needed, there is none"):
        DocumentStates.open(tmp_path / "absent")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is needed, this is a file; encode_documents writes one"):
        DocumentStates.open(tmp_path / "file")
    with pytest.raises(InputError, match="a folder is to be written here, this is a file"):
        new_store(tmp_path / "file")
    with pytest.raises(InputError, match=r"has no manifest\.json, so it holds no document states"):
        DocumentStates.open(tmp_path)
    for use in (new_store, go_on, check_folder):
        with pytest.raises(InputError, match="file: does not belong to a new store of document"):
            use(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["file"]
    (tmp_path / "other").mkdir()
    for text in ("", "[]", '{"format": 2, "shards": []}', '{"content": "x", "format": 2}', "\xff"):
        (tmp_path / "other" / "manifest.json").write_text(text)
        for use in (DocumentStates.open, new_store, go_on, StateStore.mend):
            with pytest.raises(InputError, match=r"of something else than doc|holds document sta"):
                use(tmp_path / "other")
    assert content(tmp_path / "other") == {"manifest.json": "\xff".encode()}
    check_folder(tmp_path / "absent" / "too")
    assert not (tmp_path / "absent").exists()


def test_another_format_is_refused_with_its_number(tmp_path: Path):
    new_store(tmp_path)
    for name in ("manifest.json", "manifest.copy.json"):
        path = tmp_path / name
        path.write_text(path.read_text().replace('"format": 2', '"format": 1'))
    with pytest.raises(
        InputError, match="document states of format 1; this version of jaxrank reads 2; delete"
    ):
        DocumentStates.open(tmp_path)


def test_what_a_killed_writer_leaves_goes_with_the_next(tmp_path: Path):
    store = new_store(tmp_path, NAMES[:4])
    before = content(tmp_path)
    (tmp_path / ".shard-00001.safetensors.abc.part").write_bytes(b"half")
    (tmp_path / ".manifest.json.abc.part").write_bytes(b"half")
    (tmp_path / "shard-00001.safetensors").write_bytes(b"whole, but not in the manifest")
    (tmp_path / "notes.txt").write_text("mine")
    assert_records(DocumentStates.open(tmp_path).records(NAMES[:4]), NAMES[:4], "float32")
    with store.writing():
        assert content(tmp_path) == before | {"notes.txt": b"mine"}


def test_a_new_store_may_lie_where_one_was_hardly_begun(tmp_path: Path):
    (tmp_path / ".lock").write_bytes(b"")
    (tmp_path / ".manifest.json.abc.part").write_bytes(b"half")
    assert len(new_store(tmp_path)) == 0
    assert sorted(content(tmp_path)) == [".lock", "manifest.copy.json", "manifest.json"]
