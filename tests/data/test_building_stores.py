"""Stores built in pieces: stopped, killed, gone on with, and of sources that will not do."""

import gzip
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaxrank.data.document_store.store import DocumentStore
from jaxrank.data.document_store.writer import build_store
from jaxrank.data.importing.layouts.msmarco import DocumentLines
from jaxrank.errors import InputError
from tests.data.killed_writer import status_when_killed
from tests.data.small_store import (
    NUM_DOCUMENTS,
    StoppedError,
    build,
    content,
    write_source,
)


@pytest.fixture
def source_path(tmp_path: Path) -> Path:
    return write_source(tmp_path)


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


# What is renamed: shards, the progress, the index.
BUILD = """
from pathlib import Path
from jaxrank.data.document_store.writer import build_store
from jaxrank.data.importing.layouts.msmarco import DocumentLines

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
        status = status_when_killed(BUILD, renamings, str(folder), str(source_path))
        assert status == -signal.SIGKILL
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


# Documents of 100 kB that no file holds; prints by how many kB the process grew.
LARGE_BUILD = """
import sys
from pathlib import Path
from jaxrank.data.document_store.writer import build_store
from jaxrank.data.importing.layouts.msmarco import DocumentLines

class Generated(DocumentLines):
    def records(self):
        for number in range(int(sys.argv[2])):
            yield f"D{number}\\tu\\tt\\t{number}".encode() + b" word" * 20_000 + b"\\n"

def peak():
    # Not getrusage's, which begins with that of the process that started this one.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

before = peak()
build_store(sys.argv[1], Generated(Path("generated")))
print(peak() - before)
"""


def growth(folder: Path, num_documents: int) -> int:
    command = [sys.executable, "-c", LARGE_BUILD, folder, str(num_documents)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert len(DocumentStore.open(folder)) == num_documents
    return int(printed)


def test_memory_does_not_grow_with_the_documents(tmp_path: Path):
    # 300 are several batches; the 120 MB more of the second would show.
    small, large = (growth(tmp_path / f"{count}", count) for count in (300, 1500))
    assert large < small + 20_000, (small, large)


def test_only_the_source_that_a_store_was_begun_with_is_gone_on_with(
    tmp_path: Path, source_path: Path
):
    good = source_path.read_bytes()
    with pytest.raises(StoppedError):
        build(tmp_path / "begun", source_path, stop=30)
    build(tmp_path / "finished", source_path)
    source_path.write_bytes(good.replace(b"body 1 ", b"body 9 ", 1))
    for folder, how in (("begun", "begun with"), ("finished", "built from")):
        with pytest.raises(InputError, match=rf"is not the source that .*{folder} was {how}"):
            build(tmp_path / folder, source_path)
    source_path.write_bytes(good + b"D99\t\t\tone more\n")
    with pytest.raises(InputError, match=r"is not the source that .*finished was built from"):
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


def test_a_source_without_documents_is_refused(tmp_path: Path, source_path: Path):
    source_path.write_bytes(b"\n\n")
    with pytest.raises(InputError, match=r"msmarco-docs\.tsv: no documents"):
        build(tmp_path / "store", source_path)
