import gzip
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jaxrank.data.document_store.manifest import Manifest
from jaxrank.data.document_store.reading import Malformed
from jaxrank.data.document_store.store import DocumentStore
from jaxrank.data.document_store.writer import build_store
from jaxrank.data.document_text import DocumentFields
from jaxrank.data.documents import body_fingerprint
from jaxrank.data.importing.layouts.msmarco import DocumentLines
from jaxrank.errors import InputError

NUM_DOCUMENTS = 40
EXPECTED = {
    f"D{number}": DocumentFields(
        body=f'body {number} "quoted\u2028 \x85 text\r of {number}' + " more" * (number % 7),
        title="" if number % 10 == 0 else f"Title é {number}",
        url=f"https://example.org/{number}",
    )
    for number in range(NUM_DOCUMENTS)
}


class StoppedError(Exception):
    pass


class StoppingLines(DocumentLines):
    """Ends with an error after some records, as a killed process does."""

    def __init__(self, path: Path, num_records: int) -> None:
        super().__init__(path)
        self.num_records = num_records

    def records(self) -> Iterator[bytes]:
        for number, record in enumerate(super().records()):
            if number == self.num_records:
                raise StoppedError
            yield record


@pytest.fixture
def source_path(tmp_path: Path) -> Path:
    path = tmp_path / "msmarco-docs.tsv"
    path.write_bytes(as_lines(EXPECTED))
    return path


def as_lines(documents: dict[str, DocumentFields]) -> bytes:
    lines = (f"{name}\t{d.url}\t{d.title}\t{d.body}\n" for name, d in documents.items())
    return "".join(lines).encode()


def build(
    folder: Path, path: Path, *, stop: int | None = None, malformed: Malformed = "refuse"
) -> Manifest:
    """Build with about five documents a batch and three batches a file."""
    source = DocumentLines(path) if stop is None else StoppingLines(path, stop)
    return build_store(folder, source, malformed=malformed, shard_bytes=1200, batch_bytes=400)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


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
    assert store.fingerprint("D7") == body_fingerprint(EXPECTED["D7"].body)


def test_a_gzip_source_gives_the_same_bytes(tmp_path: Path, source_path: Path):
    packed = tmp_path / "msmarco-docs.tsv.gz"
    packed.write_bytes(gzip.compress(source_path.read_bytes()))
    build(tmp_path / "plain", source_path)
    build(tmp_path / "packed", packed)
    assert content(tmp_path / "plain") == content(tmp_path / "packed")


@pytest.mark.parametrize("tail", [b"", b"\n \n"])
def test_a_build_that_stops_anywhere_goes_on_to_the_same_bytes(
    tmp_path: Path, source_path: Path, tail: bytes
):
    source_path.write_bytes(source_path.read_bytes() + tail)
    manifest = build(tmp_path / "whole", source_path)
    for stop in (0, 7, 20, 21, NUM_DOCUMENTS - 1):
        folder = tmp_path / f"stopped-{stop}"
        with pytest.raises(StoppedError):
            build(folder, source_path, stop=stop)
        assert build(folder, source_path) == manifest
        assert content(folder) == content(tmp_path / "whole")


# Killed by itself at the n-th renaming of a file: of shards, of the progress, of the index.
KILLED_BUILD = """
import os, signal, sys
from pathlib import Path
from jaxrank.data.document_store.writer import build_store
from jaxrank.data.importing.layouts.msmarco import DocumentLines

count, rename = int(sys.argv[3]), os.replace

def replace(source, target):
    global count
    count -= 1
    if count == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)

os.replace = replace
build_store(sys.argv[1], DocumentLines(Path(sys.argv[2])), shard_bytes=1200, batch_bytes=400)
"""


def test_a_build_killed_again_and_again_goes_on_to_the_same_bytes(
    tmp_path: Path, source_path: Path
):
    assert len(build(tmp_path / "whole", source_path).shards) == 3
    folder = tmp_path / "killed"
    # Before the first shard is there; with the second there but not noted; before the index;
    # before the manifest.
    for renamings in (2, 4, 5, 3):
        command = [sys.executable, "-c", KILLED_BUILD, folder, source_path, str(renamings)]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
        with pytest.raises(InputError, match="unfinished; run the same"):
            DocumentStore.open(folder)
    build(folder, source_path)
    assert content(folder) == content(tmp_path / "whole")


def test_a_build_killed_in_its_last_step_is_complete(tmp_path: Path, source_path: Path):
    build(tmp_path / "whole", source_path)
    with pytest.raises(StoppedError):
        build(tmp_path / "killed", source_path, stop=30)
    noted = (tmp_path / "killed" / "unfinished.json").read_bytes()
    build(tmp_path / "killed", source_path)
    (tmp_path / "killed" / "unfinished.json").write_bytes(noted)
    assert len(DocumentStore.open(tmp_path / "killed")) == NUM_DOCUMENTS
    build(tmp_path / "killed", source_path)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


# 100 MB of documents that no file holds; prints by how many kB the process grew.
LARGE_BUILD = """
import sys
from pathlib import Path
from jaxrank.data.document_store.writer import build_store
from jaxrank.data.importing.layouts.msmarco import DocumentLines

class Generated(DocumentLines):
    def records(self):
        for number in range(1000):
            yield f"D{number}\\tu\\tt\\t{number}".encode() + b" word" * 20_000 + b"\\n"

def peak():
    # Not getrusage's, which begins with that of the process that started this one.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

before = peak()
build_store(sys.argv[1], Generated(Path("generated")))
print(peak() - before)
"""


def test_memory_does_not_grow_with_the_documents(tmp_path: Path):
    command = [sys.executable, "-c", LARGE_BUILD, tmp_path / "store"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert int(printed) < 60_000
    assert len(DocumentStore.open(tmp_path / "store")) == 1000


def test_only_the_source_that_a_store_was_begun_with_is_gone_on_with(
    tmp_path: Path, source_path: Path
):
    good = source_path.read_bytes()
    with pytest.raises(StoppedError):
        build(tmp_path / "begun", source_path, stop=30)
    build(tmp_path / "finished", source_path)
    source_path.write_bytes(good.replace(b"body 1 ", b"body 9 ", 1))
    for folder in ("begun", "finished"):
        with pytest.raises(InputError, match=rf"is not the source that .*{folder} was begun with"):
            build(tmp_path / folder, source_path)
    source_path.write_bytes(good + b"D99\t\t\tone more\n")
    with pytest.raises(InputError, match=r"is not the source that .*finished was begun with"):
        build(tmp_path / "finished", source_path)
    assert len(build(tmp_path / "begun", source_path).shards) > 2


@pytest.mark.parametrize("cut", [5, 25])
def test_a_source_that_has_become_shorter_is_refused(tmp_path: Path, source_path: Path, cut: int):
    with pytest.raises(StoppedError):
        build(tmp_path / "store", source_path, stop=38)
    lines = source_path.read_bytes().split(b"\n")
    source_path.write_bytes(b"\n".join(lines[:cut]) + b"\n")
    with pytest.raises(InputError, match="is not the source that"):
        build(tmp_path / "store", source_path)


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
    with pytest.raises(InputError, match=rf"{name}: not there"):
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
            f"jaxrank.data.document_store.{module}.hash_id", lambda name: len(name) % 2
        )
    build(tmp_path / "store", source_path)
    store = DocumentStore.open(tmp_path / "store")
    assert {name: store.fields(name) for name in EXPECTED} == EXPECTED
    assert "D40" not in store
    source_path.write_bytes(source_path.read_bytes() + b"D15\t\t\tagain\n")
    with pytest.raises(InputError, match=r"tsv:41: id 'D15' was there before, on line 16; each"):
        build(tmp_path / "other", source_path)


def test_a_repeated_id_is_refused_with_both_lines(tmp_path: Path, source_path: Path):
    lines = source_path.read_bytes().split(b"\n")[:-1]
    source_path.write_bytes(b"\n".join([*lines[:3], b"", *lines[3:], lines[5], lines[4], b""]))
    with pytest.raises(
        InputError, match=r"docs\.tsv:42: id 'D5' was there before, on line 7 \(1 more such lines\)"
    ):
        build(tmp_path / "store", source_path)
    with pytest.raises(InputError, match="unfinished"):
        DocumentStore.open(tmp_path / "store")


def test_two_builders_do_not_write_at_once(tmp_path: Path, source_path: Path):
    class Nested(DocumentLines):
        def records(self) -> Iterator[bytes]:
            build(tmp_path / "store", source_path)
            return super().records()

    with pytest.raises(InputError, match="another process is building this store"):
        build_store(tmp_path / "store", Nested(source_path))


def test_what_belongs_to_someone_else_is_not_overwritten(tmp_path: Path, source_path: Path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt: does not belong to a store"):
        build(tmp_path / "store", source_path)
    build(tmp_path / "other", source_path)
    with pytest.raises(InputError, match="shards of another size; choose another folder"):
        build_store(tmp_path / "other", DocumentLines(source_path))


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


def test_malformed_lines_are_refused_or_counted(tmp_path: Path, source_path: Path):
    lines = source_path.read_bytes().split(b"\n")[:-1]
    bad = [*lines[:4], b"D90\tthree\tcolumns", *lines[4:], b"D91\t\t\t\xff", b""]
    source_path.write_bytes(b"\n".join(bad))
    with pytest.raises(InputError, match=r"msmarco-docs\.tsv:5: 3 columns; id, url, title, body"):
        build(tmp_path / "store", source_path)
    with pytest.raises(StoppedError):
        build(tmp_path / "store", source_path, stop=39, malformed="skip")
    with pytest.raises(InputError, match=r"passed over \(1 so far\)"):
        build(tmp_path / "store", source_path)
    reached = build(tmp_path / "store", source_path, malformed="skip").reached
    assert (reached.documents, reached.malformed, reached.first_malformed) == (40, 2, 5)
    assert reached.records == 42


def test_empty_fields_are_kept_and_counted(tmp_path: Path, source_path: Path):
    source_path.write_bytes(as_lines(EXPECTED) + b"E1\t\t\t\r\nE2\tu\tt\t \r\n")
    reached = build(tmp_path / "store", source_path).reached
    assert (reached.empty_titles, reached.empty_bodies) == (5, 2)
    assert DocumentStore.open(tmp_path / "store")["E1"] == ""


def test_a_source_without_documents_is_refused(tmp_path: Path, source_path: Path):
    source_path.write_bytes(b"\n\n")
    with pytest.raises(InputError, match=r"msmarco-docs\.tsv: no documents"):
        build(tmp_path / "store", source_path)
