"""Steps are done once, by the command and from the files that they say, and by one process."""

import gzip
import json
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from threading import Thread
from types import ModuleType

import pytest

from jaxrank.data.importing.importer import import_collection
from jaxrank.data.importing.layouts.beir import beir
from jaxrank.errors import InputError
from scripts.reproduction.fingerprints import Fingerprints, SplitQueries
from scripts.reproduction.records import Records
from scripts.reproduction.run import describe_steps, do_steps
from scripts.reproduction.steps import Step

MODULE = "a_command_of_these_tests"


class Copying:
    """A stand-in for a command: `--from A --to B [--upper true]`, and a count of its calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fails_at: str | None = None

    def main(self, words: Sequence[str]) -> None:
        options = dict(zip(words[::2], words[1::2], strict=True))
        target = Path(options["--to"])
        self.calls.append(target.name)
        if target.name == self.fails_at:
            raise InputError("a fault")
        text = Path(options["--from"]).read_text()
        target.write_text(text.upper() if "--upper" in options else text)


@pytest.fixture
def copying(monkeypatch: pytest.MonkeyPatch) -> Copying:
    command = Copying()
    module = ModuleType(MODULE)
    module.__dict__["main"] = command.main
    monkeypatch.setitem(sys.modules, MODULE, module)
    return command


def make_steps(folder: Path, *more: str, checks_itself: bool = False) -> list[Step]:
    """first -> second -> third, by copying."""
    names = ("first", "second", "third")
    steps = []
    for number, (source, target) in enumerate(pairwise(names)):
        paths = folder / source, folder / target
        words = ("--from", str(paths[0]), "--to", str(paths[1]), *(more if number == 0 else ()))
        inputs, outputs = (paths[0],), (paths[1],)
        steps.append(Step(target, "a copy", MODULE, words, inputs, outputs, checks_itself))
    return steps


def records(folder: Path, *, redo_changed: bool = False) -> Records:
    return Records(folder / "steps", redo_changed=redo_changed)


def do(folder: Path, steps: list[Step], *, redo_changed: bool = False) -> None:
    do_steps(steps, records(folder, redo_changed=redo_changed), say=lambda line: None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "first").write_text("text")
    return tmp_path


def test_a_step_that_failed_is_done_again_and_those_before_it_are_not(
    folder: Path, copying: Copying
):
    copying.fails_at = "third"
    with pytest.raises(InputError, match="a fault"):
        do(folder, make_steps(folder))
    copying.fails_at = None
    do(folder, make_steps(folder))
    do(folder, make_steps(folder))
    assert copying.calls == ["second", "third", "third"]


def test_an_output_without_a_record_is_not_taken_for_complete(folder: Path, copying: Copying):
    (folder / "second").write_text("half of")
    do(folder, make_steps(folder))
    assert copying.calls == ["second", "third"]
    assert (folder / "third").read_text() == "text"


def test_an_output_that_is_gone_is_made_again_and_what_follows_is_kept(
    folder: Path, copying: Copying
):
    do(folder, make_steps(folder))
    (folder / "second").unlink()
    assert "to do" in describe_steps(make_steps(folder), records(folder), with_commands=False)[0]
    do(folder, make_steps(folder))
    assert copying.calls == ["second", "third", "second"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "first").write_text("other"), "first is not what it was then"),
        (lambda folder: (folder / "second").write_text("texts"), "second is not what it was then"),
    ],
)
def test_changed_files_are_refused(
    folder: Path, copying: Copying, change: Callable[[Path], int], message: str
):
    do(folder, make_steps(folder))
    change(folder)
    with pytest.raises(InputError, match=message):
        do(folder, make_steps(folder))
    assert copying.calls == ["second", "third"]


def test_other_options_are_refused_unless_changed_steps_may_be_done_again(
    folder: Path, copying: Copying
):
    do(folder, make_steps(folder))
    other = make_steps(folder, "--upper", "true")
    with pytest.raises(InputError, match=r"--upper: not given then, true now.*--redo_changed"):
        describe_steps(other, records(folder), with_commands=False)
    do(folder, other, redo_changed=True)
    assert (folder / "third").read_text() == "TEXT"
    assert copying.calls == ["second", "third", "second", "third"]


def test_options_that_change_no_result_may_change(folder: Path, copying: Copying):
    words = ("--batch_size", "8")
    do(folder, make_steps(folder, *words))
    do(folder, make_steps(folder, "--batch_size", "64"))
    assert copying.calls == ["second", "third"]


def test_a_command_that_checks_itself_is_asked(folder: Path, copying: Copying):
    do(folder, make_steps(folder, checks_itself=True))
    do(folder, make_steps(folder, "--upper", "true", checks_itself=True))
    assert copying.calls == ["second", "third", "second", "third"]


def test_another_process_waits_and_then_finds_the_step_done(folder: Path, copying: Copying):
    [step, _] = make_steps(folder)
    said: list[str] = []
    # A lock belongs to an open file, so a thread that opens it anew waits as a process would.
    other = Thread(target=do_steps, args=([step], records(folder)), kwargs={"say": said.append})
    with records(folder).alone(step, say=said.append):
        other.start()
        other.join(0.2)
        assert other.is_alive()
        copying.main(step.arguments)
        records(folder).write(step)
    other.join(30)
    assert said == ["second: another process does this step; waiting for it", "[1/1] kept: second"]
    assert copying.calls == ["second"]


def test_a_large_file_is_known_by_its_size_and_ends(tmp_path: Path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(65 << 20)
    before = Fingerprints().of(path)
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    assert Fingerprints().of(path) != before


def test_a_document_store_is_known_by_the_digests_that_it_keeps(tmp_path: Path):
    lines = [{"_id": str(number), "text": "x" * 10} for number in range(3)]
    for name in ("queries", "corpus"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "qrels.test.txt").write_text("1 0 2 1\n")
    import_collection(beir(tmp_path), tmp_path / "imported")
    store = tmp_path / "imported" / "documents"
    before = Fingerprints().of(store)
    read: list[Path] = []
    with pytest.MonkeyPatch.context() as patch:
        original = Path.open
        patch.setattr(
            Path, "open", lambda self, *a, **k: (read.append(self), original(self, *a))[1]
        )
        assert Fingerprints().of(store) == before
    assert {path.name for path in read} == {"manifest.json"}
    manifest = store / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"documents": 3', '"documents": 4'))
    assert Fingerprints().of(store) != before
    next(store.glob("*.arrow*")).unlink()
    assert Fingerprints().of(store) != before


def test_questions_that_are_packed_are_read_too(tmp_path: Path):
    qrels = tmp_path / "qrels.dev.txt"
    qrels.write_text("1 0 D1 1\n")
    line = '{"_id": "1", "text": "a"}\n'
    (tmp_path / "queries.jsonl").write_text(line)
    split = SplitQueries(tmp_path, qrels)
    before = Fingerprints().of(split)
    (tmp_path / "queries.jsonl").unlink()
    with gzip.open(tmp_path / "queries.jsonl.gz", "wt") as file:
        file.write(line)
    assert split.exists()
    assert Fingerprints().of(split) == before


def test_more_splits_do_not_change_the_questions_of_one(tmp_path: Path):
    queries, qrels = tmp_path / "queries.jsonl", tmp_path / "qrels.dev.txt"
    qrels.write_text("1 0 D1 1\n")
    queries.write_text('{"_id": "1", "text": "a"}\n')
    split = SplitQueries(tmp_path, qrels)
    before = Fingerprints().of(split)
    queries.write_text('{"_id": "2", "text": "b"}\n{"_id": "1", "text": "a"}\n')
    assert Fingerprints().of(split) == before
    queries.write_text('{"_id": "1", "text": "b"}\n')
    assert Fingerprints().of(split) != before


def test_the_record_holds_the_command_and_the_files(folder: Path, copying: Copying):
    do(folder, make_steps(folder))
    record = json.loads((folder / "steps" / "second.json").read_text())
    assert record["module"] == MODULE
    assert record["arguments"][:2] == ["--from", str(folder / "first")]
    assert list(record["inputs"]) == [str(folder / "first")]
    assert list(record["outputs"]) == [str(folder / "second")]
