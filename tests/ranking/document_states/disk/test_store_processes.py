import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jaxrank.ranking.document_states.states import DocumentStates
from tests.ranking.document_states.small_states import (
    assert_gathered,
    content,
    names,
    new_store,
    record_of,
)

SCRIPT = "tests.ranking.document_states.disk.store_processes"
ROOT = Path(__file__).resolve().parents[4]


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", SCRIPT, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


@pytest.mark.parametrize("kills", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_a_writer_that_was_killed_at_random_ends_with_the_same_store(kills: int, tmp_path: Path):
    printed = run("kills", str(tmp_path), str(kills), "0")
    undisturbed = content(tmp_path / "undisturbed")
    assert len(undisturbed) == 33, sorted(undisturbed)
    assert content(tmp_path / "killed") == undisturbed, printed


def test_processes_read_while_another_appends_and_deletes(tmp_path: Path):
    run("readers", str(tmp_path / "states"))


def test_threads_read_a_store_while_it_is_written_to(tmp_path: Path):
    turns = 8
    always, others = names(0, 3), names(3, 3 + 3 * turns)
    # Every shard holds one document that stays, and one that each turn deletes.
    columns = [always, *(others[start::turns] for start in range(turns))]
    order = [name for row in zip(*columns, strict=True) for name in row]
    store = new_store(tmp_path, order, documents_per_shard=turns + 1)
    faults: list[BaseException] = []
    ended = threading.Event()

    def read(states: DocumentStates) -> None:
        try:
            while not ended.is_set():
                assert_gathered(states.gather(always), always, "float32")
        except BaseException as error:
            faults.append(error)

    # The writer's own store, and one that stays with what it has mapped.
    mapped = DocumentStates.open(tmp_path)
    mapped.gather(always)
    threads = [threading.Thread(target=read, args=(one,)) for one in (store, store, mapped)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(turns):
            store.append([record_of(f"new {turn}")])
            store.delete(columns[turn + 1])
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert not faults
    assert len(store) == 3 + turns
