"""Processes that use one store at a time, and are killed; a script, since tests do not fork.

python -m tests.ranking.document_states.disk.store_processes kills FOLDER KILLS SEED
python -m tests.ranking.document_states.disk.store_processes readers FOLDER
"""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from jaxrank.errors import InputError
from jaxrank.ranking.document_states.disk.store import StateStore
from tests.ranking.document_states.small_states import (
    IDENTITY,
    assert_gathered,
    names,
    new_store,
    record_of,
)

NAMES = names(0, 60)
DOCUMENTS_PER_SHARD = 2


def build(folder: Path) -> None:
    """Append what is missing, as a command does that is run again."""
    store = StateStore.open_or_create(
        folder, IDENTITY, "float32", "float32", documents_per_shard=DOCUMENTS_PER_SHARD
    )
    with store.writing():
        missing = store.missing(NAMES)
        for start in range(0, len(missing), DOCUMENTS_PER_SHARD):
            store.append(record_of(name) for name in missing[start : start + DOCUMENTS_PER_SHARD])


def forked(work: Callable[[], None]) -> int:
    """Start a process that does the work and leaves; its id."""
    process = os.fork()
    if process:
        return process
    try:
        work()
        os._exit(0)
    except BaseException as error:
        sys.stderr.write(f"{error!r}\n")
        os._exit(1)


def status(process: int) -> int:
    """Wait for a process to end."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def kills(folder: Path, count: int, seed: int) -> None:
    """Kill builds at random moments, each of which goes on with what the last one left."""
    begin = time.perf_counter()
    assert status(forked(lambda: build(folder / "undisturbed"))) == 0
    whole_s = time.perf_counter() - begin
    moments = random.Random(seed)
    killed = 0
    while killed < count:
        process = forked(lambda: build(folder / "killed"))
        time.sleep(moments.uniform(0, whole_s * min(2.5 / count, 0.8)))
        os.kill(process, signal.SIGKILL)
        killed += status(process) == -signal.SIGKILL
        if (folder / "killed" / "manifest.json").exists():
            store = StateStore.open(folder / "killed")
            assert store.verify() == []
            reached = len(store)
            assert list(store.document_ids) == NAMES[:reached]
            sys.stderr.write(f"killed with {reached} documents\n")
            if reached == len(NAMES):  # too late: begin again
                store.delete(NAMES)
                for path in (folder / "killed").iterdir():
                    path.unlink()
    build(folder / "killed")


def readers(folder: Path) -> None:
    """Read from two processes while a third appends and deletes."""
    new_store(folder, NAMES[:10], documents_per_shard=DOCUMENTS_PER_SHARD)
    end_s = time.monotonic() + 1.0

    def read() -> None:
        reads = 0
        store = StateStore.open(folder)
        while time.monotonic() < end_s:
            there = list(store.document_ids)
            try:
                assert_gathered(store.gather(there), there, "float32")
                reads += 1
            except InputError as error:
                if "open it again" not in str(error):
                    raise
            store = StateStore.open(folder)
        assert reads > 5

    def write() -> None:
        store = StateStore.open(folder)
        moments = random.Random(0)
        while time.monotonic() < end_s:
            store.append(record_of(name) for name in store.missing(NAMES)[:7])
            there = list(store.document_ids)
            store.delete(moments.sample(there[1:], min(5, len(there) - 1)))

    processes = [forked(work) for work in (read, read, write)]
    assert [status(process) for process in processes] == [0, 0, 0]
    assert StateStore.open(folder).verify() == []


if __name__ == "__main__":
    if sys.argv[1] == "kills":
        kills(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    else:
        readers(Path(sys.argv[2]))
