import json
import sys
from pathlib import Path

import pytest

from jaxrank import evaluate
from jaxrank.command_line import run
from jaxrank.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Judgements of ten queries, a good run, and a bad one that lacks the last query."""
    queries = [f"q{i}" for i in range(10)]
    (tmp_path / "qrels.txt").write_text("".join(f"{q} 0 d1 1\n" for q in queries))
    for name, scores, of in (("good", (2, 1), queries), ("bad", (1, 2), queries[:9])):
        lines = [f"{q} Q0 d{i} 1 {score} t\n" for q in of for i, score in enumerate(scores, 1)]
        (tmp_path / f"{name}.run").write_text("".join(lines))
    return tmp_path


def arguments(folder: Path) -> list[str]:
    runs = [str(folder / "bad.run"), str(folder / "good.run")]
    return ["--qrels", str(folder / "qrels.txt"), "--runs", *runs, "--measures", "RR@10 R@1"]


def test_the_table_compares_the_runs_with_the_first(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate.main(arguments(folder))
    printed = capsys.readouterr().out
    assert "10 queries; baseline bad" in printed
    assert "RR@10    good  1.0000     +0.5500" in printed
    assert "bad: 1 of 10 queries are not in the run and count 0" in printed


def test_the_baseline_can_be_any_of_the_runs(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate.main([*arguments(folder), "--baseline", str(folder / "good.run")])
    printed = capsys.readouterr().out
    assert "baseline good" in printed
    assert "RR@10    bad   0.4500     -0.5500" in printed


def test_json_and_per_query_files_hold_the_same_figures(folder: Path) -> None:
    out = folder / "out"
    files = ["--json", str(out / "e.json"), "--per_query", str(out / "q.tsv")]
    evaluate.main([*arguments(folder), *files])
    report = json.loads((out / "e.json").read_text())
    assert report["queries"] == 10
    assert report["runs"]["bad"]["means"]["RR@10"] == pytest.approx(0.45)
    test = report["runs"]["good"]["against_baseline"]["RR@10"]
    assert test["difference"] == pytest.approx(0.55)
    assert (test["wins"], test["ties"], test["losses"]) == (10, 0, 0)
    rows = [line.split("\t") for line in (out / "q.tsv").read_text().splitlines()[1:]]
    values = [
        float(value) for name, measure, _, value in rows if (name, measure) == ("bad", "RR@10")
    ]
    assert sum(values) / len(values) == pytest.approx(0.45)
    assert len(rows) == 2 * 2 * 10


@pytest.mark.parametrize(
    ("file", "line", "words"),
    [
        ("good.run", "q1 Q0 d9 3 nan t\n", "good.run:21: score 'nan'"),
        ("good.run", "q1 Q0 d9 3 1.0\n", "good.run:21: 5 columns"),
        ("good.run", "q1 Q0 d1 3 1.0 t\n", "good.run:21: query 'q1' has document 'd1'"),
        ("qrels.txt", "q1 0 d7 x\n", "qrels.txt:11: grade 'x'"),
        ("qrels.txt", "q1 0 d1 1\n", "qrels.txt:11: query 'q1' and document 'd1'"),
    ],
)
def test_bad_files_give_one_line_status_2_and_no_output(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    file: str,
    line: str,
    words: str,
) -> None:
    with (folder / file).open("a") as lines:
        lines.write(line)
    before = sorted(folder.iterdir())
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    monkeypatch.setattr(
        sys, "argv", ["evaluate", *arguments(folder), "--json", str(folder / "e.json")]
    )
    with pytest.raises(SystemExit) as exit_status:
        run(evaluate.main)
    assert exit_status.value.code == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert words in printed.err
    assert printed.out == ""
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--measures", "ndgc@10"], "did you mean 'nDCG@10'?"),
        (["--baseline", "other.run"], "other.run is not among the runs"),
        (["--runs", "absent.run"], "absent.run: no such file"),
        (["--qrels", "absent.txt"], "absent.txt: no such file"),
        (["--mesures", "RR"], "did you mean 'measures'?"),
        (["--document_text", "body"], "document_text: got body; only --slice_by document_length"),
    ],
)
def test_bad_options_are_named(folder: Path, options: list[str], words: str) -> None:
    with pytest.raises(InputError) as error:
        evaluate.main([*arguments(folder), *options])
    assert words in str(error.value)


def test_csv_and_latex_hold_the_means_of_the_table(folder: Path) -> None:
    files = ["--csv", str(folder / "e.csv"), "--latex", str(folder / "e.tex")]
    evaluate.main([*arguments(folder), *files, "--correction", "holm"])
    rows = [line.split(",") for line in (folder / "e.csv").read_text().splitlines()]
    assert [row[3:6] for row in rows[1:]] == [
        ["bad", "RR@10", "0.45"], ["bad", "R@1", "0.0"], ["good", "RR@10", "1.0"],
        ["good", "R@1", "1.0"],
    ]  # fmt: skip
    assert (folder / "e.tex").read_text().splitlines()[2:] == [
        r"bad & 0.4500 & 0.0000 \\", r"good & 1.0000$^{\dagger}$ & 1.0000$^{\dagger}$ \\"
    ]  # fmt: skip


def test_json_has_an_interval_of_each_mean(folder: Path) -> None:
    evaluate.main([*arguments(folder), "--json", str(folder / "e.json")])
    runs = json.loads((folder / "e.json").read_text())["runs"]
    low, high = runs["bad"]["intervals"]["RR@10"]
    assert low < 0.45 < high
    assert low + high == pytest.approx(0.9)
    assert runs["good"]["intervals"]["R@1"] == [1.0, 1.0]


def test_slices_go_by_lengths_of_the_collections_texts(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queries = [{"_id": f"q{i}", "text": "word " * (i + 1)} for i in range(10)]
    (folder / "queries.jsonl").write_text("".join(json.dumps(query) + "\n" for query in queries))
    (folder / "corpus.jsonl").write_text('{"_id": "d1", "text": "a relevant document"}\n')
    (folder / "position.tsv").write_text("q0\t1\nq1\t4\n")
    slices = ["--slice_by", "query_length:6", "document_length", str(folder / "position.tsv")]
    files = ["--collection", str(folder), "--json", str(folder / "e.json")]
    evaluate.main([*arguments(folder), *slices, *files])
    printed = capsys.readouterr().out
    assert "1 to 5        5        RR@10    bad   0.5000  0.5000 0.5000" in printed
    assert "position: 8 queries have no value, so no slice" in printed
    found = json.loads((folder / "e.json").read_text())["slicings"]
    assert [slicing["by"] for slicing in found] == ["query_length", "document_length", "position"]
    assert [part["queries"] for part in found[0]["slices"]] == [5, 5]
    assert found[0]["slices"][1]["runs"]["bad"]["means"]["RR@10"] == pytest.approx(0.4)
    assert [(part["from"], part["to"]) for part in found[1]["slices"]] == [(3.0, 3.0)]


def test_a_track_takes_the_place_of_measures(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--qrels", str(folder / "qrels.txt"), "--runs", str(folder / "good.run")]
    evaluate.main([*files, "--track", "dl19-document"])
    printed = capsys.readouterr().out
    assert "dl19-document: 10 of 43 queries: not the official set" in printed
    assert "Judged@10  good  0.5000" in printed
    with pytest.raises(InputError, match="give --measures or --track"):
        evaluate.main([*arguments(folder), "--track", "dl19-document"])


def test_ranks_in_a_wrong_order_change_nothing(folder: Path) -> None:
    run, means = folder / "good.run", []
    for _ in range(2):
        evaluate.main([*arguments(folder), "--json", str(folder / "e.json")])
        means.append(json.loads((folder / "e.json").read_text())["runs"]["good"]["means"])
        columns = [line.split() for line in run.read_text().splitlines()]
        wrong = [[*row[:3], str(99 - i), *row[4:]] for i, row in enumerate(columns)]
        run.write_text("".join(" ".join(row) + "\n" for row in wrong))
    assert means[0] == means[1]
