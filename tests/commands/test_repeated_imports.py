"""An import done again, over an earlier one, or after a kill."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from jaxrank.data.collection import Collection
from jaxrank.data.importing import importer
from jaxrank.errors import InputError
from jaxrank.import_collection import main
from tests.commands.msmarco_files import (
    ARGUMENTS,
    body,
    change,
    contents,
    states,
    write_source,
)
from tests.data.killed_writer import status_when_killed


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """MS MARCO's files in the folder `source` of the working folder."""
    monkeypatch.chdir(tmp_path)
    return write_source(tmp_path / "source")


def test_a_second_call_does_nothing(source: Path, capsys: pytest.CaptureFixture[str]):
    main(ARGUMENTS)
    before, said = states(Path("out")), capsys.readouterr().out
    main(ARGUMENTS)
    assert states(Path("out")) == before
    assert capsys.readouterr().out == said.replace("wrote out", "out: was complete; nothing to do")


def test_another_text_changes_collection_json_alone(
    source: Path, capsys: pytest.CaptureFixture[str]
):
    main(ARGUMENTS)
    before, digest = states(Path("out")), Collection.open("out").digest()
    main((*ARGUMENTS, "--document_text", "body"))
    after = states(Path("out"))
    assert {name for name in after if after[name] != before[name]} == {"collection.json"}
    assert "out: was complete; only the text's choice has changed" in capsys.readouterr().out
    assert Collection.open("out").documents["D4"] == body(4)
    assert Collection.open("out").digest() != digest
    explicit = Collection.open("out", document_text="title-body")
    assert explicit.documents["D4"] == f"A title {body(4)}"


def test_changed_judgements_are_taken_without_reading_the_documents_again(
    source: Path, monkeypatch: pytest.MonkeyPatch
):
    main(ARGUMENTS)
    before = states(Path("out"))
    (source / "msmarco-docdev-qrels.tsv").write_text("8 0 D1 1\n")
    (source / "2019qrels-docs.txt").unlink()
    (source / "msmarco-docs-lookup.tsv").unlink()
    monkeypatch.delattr(importer, "build_store")
    main(ARGUMENTS)
    collection = Collection.open("out")
    assert collection.splits == ["dev", "train"]
    assert collection.qrels("dev") == {"8": {"D1": 1}}
    after = states(Path("out"))
    documents = [name for name in before if name.startswith("documents/")]
    assert [after[name] for name in documents] == [before[name] for name in documents]


def test_a_lost_file_of_the_folder_is_written_again(source: Path):
    main(ARGUMENTS)
    before = contents(Path("out"))
    Path("out/qrels.dev.txt").unlink()
    main(ARGUMENTS)
    after = contents(Path("out"))
    assert {name for name in before if after[name] != before[name]} <= {"import.json"}


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [("qrels.dev.txt", "10 0 D10 1", "10 0 D10 0"), ("queries.jsonl", "query 9", "query 8")],
)
def test_an_edited_file_of_equal_size_is_written_again(
    source: Path, name: str, old: str, new: str, capsys: pytest.CaptureFixture[str]
):
    main(ARGUMENTS)
    before = contents(Path("out"))
    change(Path("out", name), old, new)
    main(ARGUMENTS)
    assert "wrote out" in capsys.readouterr().out.splitlines()[-1]
    assert contents(Path("out"))[name] == before[name]


def test_lost_documents_are_imported_again_by_the_same_command(source: Path):
    main(ARGUMENTS)
    before = contents(Path("out"))
    shutil.rmtree("out/documents")
    main(ARGUMENTS)
    after = contents(Path("out"))
    assert {name for name in before if after[name] != before[name]} <= {"import.json"}


def test_documents_of_another_import_are_not_taken_for_those_of_the_source(source: Path):
    main(ARGUMENTS)
    change(source / "msmarco-docs.tsv", "D4\thttp://x/4", "D4\thttp://x/5")
    main((*ARGUMENTS[:-1], "other"))
    change(source / "msmarco-docs.tsv", "D4\thttp://x/5", "D4\thttp://x/4")
    state = json.loads(Path("out/import.json").read_text())["inputs"]["files"]["msmarco-docs.tsv"]
    os.utime(source / "msmarco-docs.tsv", ns=(state[1], state[1]))
    shutil.rmtree("out/documents")
    shutil.copytree("other/documents", "out/documents")
    with pytest.raises(InputError, match=r"is not the source that out/documents was built from"):
        main(ARGUMENTS)


def test_bytes_that_have_changed_are_found_where_asked(
    source: Path, capsys: pytest.CaptureFixture[str]
):
    main((*ARGUMENTS, "--verify", "true"))
    checked = "out: every file is as it was written (SHA-256)\n"
    assert capsys.readouterr().out.endswith(f"wrote out\n{checked}")
    main((*ARGUMENTS, "--verify", "true"))
    assert capsys.readouterr().out.endswith(f"nothing to do\n{checked}")
    shard = Path("out/documents/00000.arrow")
    whole = shard.read_bytes()
    shard.write_bytes(bytes([*whole[:-300], whole[-300] ^ 1, *whole[-299:]]))
    main(ARGUMENTS)  # of the same size
    assert checked not in capsys.readouterr().out
    mend = r"damaged: 00000\.arrow; delete out/documents and run the same import again"
    with pytest.raises(InputError, match=mend):
        main((*ARGUMENTS, "--verify", "true"))
    shutil.rmtree("out/documents")
    main((*ARGUMENTS, "--verify", "true"))
    assert shard.read_bytes() == whole


IMPORT = """
from jaxrank.import_collection import main
main(sys.argv[1:])
"""


def test_a_killed_import_cannot_be_opened_and_goes_on(source: Path):
    main((*ARGUMENTS[:-1], "whole"))
    # In the documents, their index, the judgements, and before the queries, which come last.
    for renamings in (2, 3, 4, 5):
        assert status_when_killed(IMPORT, renamings, *ARGUMENTS) == -signal.SIGKILL
        with pytest.raises(InputError, match=r"unfinished; run the same|run the same import again"):
            Collection.open("out")
    main(ARGUMENTS)
    whole, out = contents(Path("whole")), contents(Path("out"))
    reports = [json.loads(folder.pop("import.json"))["report"] for folder in (whole, out)]
    assert whole == out
    assert reports[0] | {"seconds": 0} == reports[1] | {"seconds": 0}


def test_an_import_that_stops_over_an_earlier_one_cannot_be_opened(
    source: Path, monkeypatch: pytest.MonkeyPatch
):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    main(ARGUMENTS)
    change(source / "msmarco-docdev-qrels.tsv", "10 0 D10 1", "10 0 D11 1")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(importer.CollectionFile, "write", stop)
        main(ARGUMENTS)
    assert not Path("out/import.json").exists()
    with pytest.raises(InputError, match=r"queries\.jsonl: no such file; an import writes it last"):
        Collection.open("out")
    main(ARGUMENTS)
    assert Collection.open("out").qrels("dev")["10"] == {"D11": 1}
