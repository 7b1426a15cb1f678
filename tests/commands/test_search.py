import shutil
import sys
from pathlib import Path

import pytest

from jaxrank import search
from jaxrank.command_line import run
from jaxrank.evaluation.runs import read_run


def copy(collection: Path, folder: Path) -> Path:
    shutil.copytree(collection, folder / "collection")
    return folder / "collection"


def status(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit status of the command, run as from a shell."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    monkeypatch.setattr(sys, "argv", ["search", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_status:
        run(search.main)
    return int(exit_status.value.code or 0)


def test_search_writes_a_run_for_the_queries_of_the_split(
    medquad_mini: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "bm25.dev.run"
    arguments = ["--collection", str(medquad_mini), "--split", "dev", "--output", str(output)]
    search.main([*arguments, "--depth", "20"])
    results = read_run(output)
    assert len(results) == 281
    assert max(len(scores) for scores in results.values()) == 20
    assert output.read_text().split()[5] == "bm25"
    told = capsys.readouterr().out.splitlines()
    assert [line.partition(" in ")[0] for line in told[:2]] == [
        "2063 documents indexed",
        "281 queries searched",
    ]
    assert told[1].endswith(" a second")


def test_lucene_writes_a_run_and_says_nothing_of_java(
    medquad_mini: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "lucene.dev.run"
    arguments = ["--collection", str(medquad_mini), "--split", "dev", "--output", str(output)]
    search.main([*arguments, "--backend", "lucene", "--threads", "2", "--depth", "20"])
    results = read_run(output)
    assert len(results) == 281
    assert max(len(scores) for scores in results.values()) == 20
    said = capfd.readouterr()
    assert [line.partition(" ")[0] for line in said.out.splitlines()] == ["2063", "281", "wrote"]
    assert "INFO" not in said.err
    assert "WARN" not in said.err


def test_queries_that_match_nothing_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d1", "text": "asthma"}\n')
    (tmp_path / "queries.jsonl").write_text(
        '{"_id": "q1", "text": "asthma"}\n{"_id": "q2", "text": "zebra"}\n'
    )
    (tmp_path / "qrels.test.txt").write_text("q1 0 d1 1\nq2 0 d1 1\n")
    output = tmp_path / "out.run"
    search.main(["--collection", str(tmp_path), "--split", "test", "--output", str(output)])
    assert list(read_run(output)) == ["q1"]
    assert "1 queries match no document" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--split", "tset"], "split 'tset'"),
        (["--split", "test", "--k1", "-1"], "k1: -1.0"),
        (["--split", "test", "--b", "2"], "b: 2.0"),
        (["--split", "test", "--depth", "0"], "depth: 0"),
        (["--split", "test", "--depht", "10"], "did you mean 'depth'?"),
        (["--split", "test", "--backend", "bm52"], "bm52"),
        (["--split", "test", "--threads", "2"], "threads: 2; goes with --backend lucene"),
        (["--split", "test", "--backend", "lucene", "--k1", "-1"], "k1: -1.0"),
        (["--split", "test", "--backend", "lucene", "--depth", "0"], "depth: 0"),
        (["--split", "test", "--backend", "lucene", "--threads", "0"], "threads: 0"),
        (["--split", "test", "--backend", "lucene", "--index", "msmarc"], "nearest: msmarco"),
        (["--split", "test", "--backend", "lucene", "--index", "cacn"], "nearest: cacm"),
    ],
)
def test_bad_options_give_one_line_and_no_file(
    medquad_mini: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    words: str,
) -> None:
    output = tmp_path / "out.run"
    arguments = ("--collection", medquad_mini, "--output", output, *options)
    assert status(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert words in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("file", "line", "place"),
    [
        ("qrels.test.txt", "q1 0 d1 yes\n", "qrels.test.txt:291: grade 'yes'"),
        ("corpus.jsonl", '{"_id": "d1", "text": \n', "corpus.jsonl:2064: not valid JSON"),
        ("queries.jsonl", "\n[1]\n", "queries.jsonl:1885: a JSON object"),
    ],
)
def test_a_bad_line_in_the_collection_is_named(
    medquad_mini: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    file: str,
    line: str,
    place: str,
) -> None:
    collection = copy(medquad_mini, tmp_path)
    with (collection / file).open("a") as lines:
        lines.write(line)
    output = tmp_path / "out.run"
    arguments = ("--collection", collection, "--split", "test", "--output", output)
    assert status(monkeypatch, *arguments) == 2
    assert place in capsys.readouterr().err
    assert not output.exists()


def test_a_full_disk_leaves_the_old_run(
    medquad_mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.run"
    output.write_text("old")

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    arguments = ("--collection", medquad_mini, "--split", "test", "--output", output)
    assert status(monkeypatch, *arguments) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out.run"]
    assert output.read_text() == "old"
