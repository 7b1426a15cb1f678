"""Official files into a collection folder, by the command: once, resumably, nothing in silence."""

import gzip
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jaxrank.data.collection import Collection
from jaxrank.data.document_store.store import DocumentStore
from jaxrank.data.importing import importer
from jaxrank.errors import InputError
from jaxrank.import_collection import main

ARGUMENTS = ("--source", "source", "--output", "out")


def text(number: int) -> str:
    return f'"{number}" said\u2028the {number}th'


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """MS MARCO's document files, of 30 documents, in the folder `source` of the working folder."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "source"
    folder.mkdir()
    titles = ["" if number == 3 else "A title" for number in range(30)]
    lines = [
        f"D{number}\thttp://x/{number}\t{title}\t{text(number)}\n".encode()
        for number, title in enumerate(titles)
    ]
    offsets = [sum(map(len, lines[:number])) for number in range(30)]
    files = {
        "msmarco-docs.tsv": b"".join(lines).decode(),
        "msmarco-docs-lookup.tsv": "".join(f"D{n}\t0\t{offsets[n]}\n" for n in range(30)),
        "msmarco-doctrain-queries.tsv": "".join(f"{n}\tquery {n}\n" for n in range(10)),
        "msmarco-doctrain-qrels.tsv": "".join(f"{n} 0 D{n} 1\n" for n in range(9)) + "9 0 D77 1\n",
        "msmarco-docdev-queries.tsv": "".join(f"{n}\tquery {n}\n" for n in range(8, 12)),
        "msmarco-docdev-qrels.tsv": "".join(f"{n} 0 D{n} 1\n" for n in range(10, 12)),
        "msmarco-test2019-queries.tsv": "20\tquery 20\n21\tquery 21\n",
        "2019qrels-docs.txt": "20 Q0 D1 3\n20 Q0 D2 0\n",
    }
    for name, content in files.items():
        (folder / name).write_text(content)
    return folder


def states(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in files
    }


def test_official_files_become_a_collection(source: Path, capsys: pytest.CaptureFixture[str]):
    main(ARGUMENTS)
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("30 documents, 0.000 GB; on disk")
    assert said[1:3] == ["empty: 1 titles, 0 bodies", "14 queries"]
    assert said[3] == (
        "train: 10 judged queries, 10 judgements, 1 of them of documents that are not there, first "
        "D77"
    )
    assert said[4:6] == [
        "dev: 2 judged queries, 2 judgements",
        "dl19: 1 judged queries, 2 judgements",
    ]
    assert said[6].startswith("split dl20 is left out: msmarco-test2020-queries.tsv and 2020qrels-")
    assert said[7:] == ["wrote out"]
    collection = Collection.open("out")
    assert isinstance(collection.documents, DocumentStore)
    assert list(collection.documents) == [f"D{number}" for number in range(30)]
    assert collection.documents["D3"] == f"http://x/3 {text(3)}"
    assert collection.splits == ["dev", "dl19", "train"]
    assert collection.qrels("dl19") == {"20": {"D1": 3, "D2": 0}}
    assert collection.split_queries("dev") == {"10": "query 10", "11": "query 11"}
    assert set(collection.digest()) == {
        "documents/manifest.json",
        "collection.json",
        "queries.jsonl",
        "qrels.dev.txt",
        "qrels.dl19.txt",
        "qrels.train.txt",
    }


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
    assert Collection.open("out").documents["D4"] == text(4)
    assert Collection.open("out").digest() != digest
    explicit = Collection.open("out", document_text="title-body")
    assert explicit.documents["D4"] == f"A title {text(4)}"


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
    before = {name: content for name, (content, _) in states(Path("out")).items()}
    Path("out/qrels.dev.txt").unlink()
    main(ARGUMENTS)
    after = {name: content for name, (content, _) in states(Path("out")).items()}
    assert {name for name in before if after[name] != before[name]} <= {"import.json"}


# Killed by itself at the n-th renaming of a file.
KILLED_IMPORT = """
import os, signal, sys
from jaxrank.import_collection import main

count, rename = int(sys.argv[1]), os.replace

def replace(source, target):
    global count
    count -= 1
    if count == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)

os.replace = replace
main(sys.argv[2:])
"""


def test_a_killed_import_cannot_be_opened_and_goes_on(source: Path):
    main((*ARGUMENTS[:-1], "whole"))
    # In the documents, their index, the judgements, and before the queries, which come last.
    for renamings in (2, 3, 4, 5):
        command = [sys.executable, "-c", KILLED_IMPORT, str(renamings), *ARGUMENTS]
        status = subprocess.run(command, check=False, capture_output=True).returncode
        assert status == -signal.SIGKILL
        with pytest.raises(InputError, match=r"unfinished; run the same|run the same import again"):
            Collection.open("out")
    main(ARGUMENTS)
    whole, out = (
        {name: content for name, (content, _) in states(Path(folder)).items()}
        for folder in ("whole", "out")
    )
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
    with pytest.raises(InputError, match=r"queries\.jsonl: no such file; an import writes it last"):
        Collection.open("out")
    main(ARGUMENTS)
    assert Collection.open("out").qrels("dev")["10"] == {"D11": 1}


def refused(*arguments: str) -> str:
    with pytest.raises(InputError) as error:
        main((*ARGUMENTS, *arguments))
    assert not Path("out/queries.jsonl").exists()
    return str(error.value)


def change(path: Path, old: str, new: str) -> None:
    content = path.read_text()
    assert old in content
    path.write_bytes(content.replace(old, new, 1).encode())


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("msmarco-docs.tsv", "D4\thttp://x/4\t", "D4\t", "msmarco-docs.tsv:5: 3 columns; id, url"),
        ("msmarco-docs.tsv", "D4\t", "D2\t", "msmarco-docs.tsv:5: id 'D2' was there before, on li"),
        (
            "msmarco-docs.tsv",
            '"0" said',
            '"0" has said',
            "lookup.tsv:2: document 'D1' begins at by",
        ),
        ("msmarco-doctrain-queries.tsv", "4\tq", "4 q", "train-queries.tsv:5: 1 columns; id, text"),
        (
            "msmarco-docdev-queries.tsv",
            "y 8",
            "y eight",
            "dev-queries.tsv:1: query '8' has another",
        ),
        ("msmarco-doctrain-qrels.tsv", "4 0 D4 1", "4 0 D4", "train-qrels.tsv:5: 3 columns; this"),
        (
            "msmarco-doctrain-qrels.tsv",
            "4 0 D4",
            "3 0 D3",
            "train-qrels.tsv:5: query '3' and docum",
        ),
        ("msmarco-docdev-qrels.tsv", "11 0", "77 0", "split dev: 1 of 2 judged queries have no te"),
    ],
)
def test_bad_data_is_named_by_file_and_line(
    source: Path, name: str, old: str, new: str, message: str
):
    change(source / name, old, new)
    assert message in refused()


def test_malformed_documents_are_passed_over_and_counted_where_asked(
    source: Path, capsys: pytest.CaptureFixture[str]
):
    # As long as it was, so that the others begin where the lookup says.
    change(source / "msmarco-docs.tsv", "D4\thttp://x/4\t", "D4 http://x/4\t")
    main((*ARGUMENTS, "--malformed", "skip"))
    said = capsys.readouterr().out
    assert "1 malformed lines were passed over, the first is line 5\n" in said
    assert "2 of them of documents that are not there, first D4" in said
    assert len(Collection.open("out").documents) == 29


def test_crlf_and_gzip_files_give_the_same_collection(source: Path):
    main(ARGUMENTS)
    (source / "msmarco-docs-lookup.tsv").unlink()  # of the plain file's bytes
    for path in list(source.iterdir()):
        content = path.read_bytes()
        path.unlink()
        packed = gzip.compress(content.replace(b"\n", b"\r\n"))
        path.with_name(f"{path.name}.gz").write_bytes(packed)
    main((*ARGUMENTS[:-1], "packed"))
    plain, packed = Collection.open("out"), Collection.open("packed")
    assert dict(packed.documents) == dict(plain.documents)
    assert packed.queries == plain.queries
    for split in plain.splits:
        assert packed.qrels(split) == plain.qrels(split)


def test_an_import_into_its_own_source_is_refused(tmp_path: Path, medquad_mini: Path):
    with pytest.raises(InputError, match=r"holds corpus\.jsonl already; import into another"):
        main(("--source", str(medquad_mini), "--output", str(medquad_mini)))


def test_a_source_without_queries_says_which_files_are_missing(source: Path):
    for path in source.glob("*queries*"):
        path.unlink()
    assert "no queries go with it; split train is left out: msmarco-doctrain-queries" in refused()


def test_a_collection_of_json_lines_is_the_same_when_imported(tmp_path: Path, medquad_mini: Path):
    main(("--source", str(medquad_mini), "--output", str(tmp_path / "out")))
    plain, stored = Collection.open(medquad_mini), Collection.open(tmp_path / "out")
    assert list(stored.documents.items()) == list(plain.documents.items())
    assert stored.queries == plain.queries
    assert stored.qrels("test") == plain.qrels("test")
    name = next(iter(plain.documents))
    assert stored.documents.fingerprint(name) == plain.documents.fingerprint(name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"format": 2}, "'format': 1 is needed"),
        ({"format": 1, "document_text": "title"}, "'document_text': got 'title'; needed is one of"),
        ({"format": 1, "documents": 3}, r"got \['documents'\]; format, layout and document_text"),
        ({"format": 1, "layout": 3}, "'layout': got 3"),
    ],
)
def test_a_bad_collection_json_is_named(source: Path, content: dict[str, Any], message: str):
    main(ARGUMENTS)
    Path("out/collection.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"collection\.json: {message}"):
        Collection.open("out")
