"""python -m jaxrank.compare: what the page says is what the run folders hold."""

import json
import re
import sys
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxrank import compare, evaluate
from jaxrank.command_line import run
from jaxrank.errors import InputError
from jaxrank.evaluation.measures import evaluate_run
from jaxrank.evaluation.qrels import read_qrels
from jaxrank.evaluation.runs import Run, write_run
from jaxrank.training.per_query import first_stage_file, milestone_file, write_per_query

MEASURES = ["RR@10", "nDCG@10"]
QUERIES = [f"q{number}" for number in range(30)]


class Page(HTMLParser):
    """Elements, attributes, tables as rows of texts, and titles of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.tables: list[list[list[str]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += attrs
        if tag != "meta":
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"{tag} is closed where another element is open"

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("script", "style"):
            self.words.append(data)
        if {"td", "th"} & set(self._open):
            self.tables[-1][-1][-1] += f" {data}" if self.tables[-1][-1][-1] else data

    @property
    def shown(self) -> str:
        return " ".join(self.words)

    def table(self, header: str) -> list[list[str]]:
        """The rows of the first table that has this header."""
        return next(rows[1:] for rows in self.tables if header in rows[0])


def collection(folder: Path) -> Path:
    """Thirty questions with one relevant document each."""
    folder.mkdir()
    lines = [{"_id": query_id, "text": f"Text of {query_id}?"} for query_id in QUERIES]
    (folder / "queries.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "qrels.dev.txt").write_text("".join(f"{q} 0 d0 1\n" for q in QUERIES))
    return folder


def rank(seed: int, queries: Sequence[str] = QUERIES) -> Run:
    random = np.random.default_rng(seed)
    return {q: {f"d{n}": float(s) for n, s in enumerate(random.normal(size=12))} for q in queries}


def write_training_run(
    folder: Path,
    collection: Path,
    *,
    seed: int,
    queries: Sequence[str] = QUERIES,
    status: str = "finished",
    **options: Any,
) -> Path:
    """A run folder of 40 steps with milestones at 20 and 40, as training leaves it."""
    folder.mkdir(parents=True)
    about = {
        "status": status,
        "command": ["python", "-m", "jaxrank.train"],
        "config": {
            "model": {"family": "bert", "preset": "minilm-l6"},
            "data": {"collection": str(collection)},
            "dev": {"split": "dev"},
            "optimizer": {"learning_rate": 1e-4},
            "training": {"output": str(folder), "seed": seed},
        }
        | options,
        "sha256": {f"{collection}/qrels.dev.txt": "a" * 64},
        "git": {"commit": "0123456789abcdef", "is_changed": False},
        "packages": {"jax": "0.10.2"},
        "python": "3.11.7",
        "device": {"kind": "cpu", "count": 1},
    }
    (folder / "run.json").write_text(json.dumps(about))
    qrels = {q: {"d0": 1} for q in queries}
    lines: list[dict[str, Any]] = []

    def measure(step: int, prefix: str, path: Path, seed: int) -> None:
        evaluation = evaluate_run(qrels, rank(seed, queries), MEASURES)
        write_per_query(path, evaluation.per_query)
        lines.append({f"{prefix}/{name}": mean for name, mean in evaluation.means.items()})
        lines[-1] |= {"step": step, "time_s": 3.5 * step}

    measure(0, "first_stage", first_stage_file(folder), seed=99)
    for step in range(2, 41, 2):
        values = {"loss": 2 / step, "learning_rate": 1e-4, "pairs_per_s": 100.0 + step**2 + seed}
        lines.append({"step": step, "time_s": 3.5 * step, **values, "memory_gib": 1.25})
        if step in (20, 40):
            measure(step, "dev", milestone_file(folder, step), seed=1000 * seed + step)
    write_metrics(folder, lines)
    return folder


def write_metrics(folder: Path, lines: Sequence[dict[str, Any]]) -> None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def read_lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def as_number(cell: str) -> float:
    return float(cell.replace("\N{MINUS SIGN}", "-"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return collection(tmp_path / "questions")


@pytest.fixture
def runs(tmp_path: Path, data: Path) -> list[Path]:
    return [
        write_training_run(tmp_path / "small", data, seed=1),
        write_training_run(tmp_path / "large", data, seed=2, optimizer={"learning_rate": 3e-4}),
    ]


def make_page(runs: Sequence[Path], *arguments: str) -> Page:
    output = runs[0].parent / "page.html"
    compare.main([*map(str, runs), "--output", str(output), *arguments])
    return Page(output.read_text(encoding="utf-8"))


def test_the_page_needs_nothing_but_itself(runs: list[Path]):
    page = make_page(runs)
    assert not {"link", "img", "iframe", "object", "base"} & set(page.elements)
    assert not {"src", "href", "xlink:href", "srcset", "action"} & {n for n, _ in page.attributes}
    assert not re.search(r"https?:|url\(|@import|import\(|fetch\(|XMLHttpRequest", page.text)
    assert page.elements.count("svg") >= 5


def test_the_summary_holds_the_values_of_the_run_folders(runs: list[Path]):
    page = make_page(runs)
    rows = {cells[0].split()[0]: cells for cells in page.table("commit")}
    assert list(rows) == ["small", "large"]
    for folder in runs:
        lines = read_lines(folder)
        cells = rows[folder.name]
        assert cells[1].startswith("minilm-l6")
        assert cells[2] == "40"
        for measure, cell in zip(MEASURES, cells[3:5], strict=True):
            values = {
                line["step"]: line[name] for line in lines if (name := f"dev/{measure}") in line
            }
            assert cell.startswith(f"{values[40]:.4f}")
            if values[20] > values[40]:
                assert f"best {values[20]:.4f} at step 20" in cell
            else:
                assert "best" not in cell
            assert f"first stage {lines[0][f'first_stage/{measure}']:.4f}" in cell
        speeds = [line["pairs_per_s"] for line in lines if "pairs_per_s" in line]
        assert cells[5] == f"{np.median(speeds):.1f}"
        assert cells[6].startswith("2:20")
        assert cells[7] == "1.25"
        assert cells[8] == "0123456789"
    assert "best" in "".join(cell for cells in rows.values() for cell in cells)


def test_tests_are_those_of_jaxrank_evaluate(runs: list[Path], data: Path, tmp_path: Path):
    page = make_page(runs)
    names = []
    for seed in (1, 2):
        names.append(str(tmp_path / f"{seed}.run"))
        write_run(names[-1], rank(1000 * seed + 40), tag="t")
    qrels = str(data / "qrels.dev.txt")
    measures = ["--measures", " ".join(MEASURES), "--json", str(tmp_path / "e.json")]
    evaluate.main(["--qrels", qrels, "--runs", *names, *measures])
    expected = json.loads((tmp_path / "e.json").read_text())["runs"]["2"]["against_baseline"]
    rows = page.table("wins/ties/losses")
    assert [row[:2] for row in rows] == [["large", measure] for measure in MEASURES]
    assert "against small" in page.shown
    for row in rows:
        test = expected[row[1]]
        low, high = test["interval"]
        figures = [as_number(cell) for cell in row[2:7]]
        truth = [test["difference"], low, high, test["p_t_test"], test["p_permutation"]]
        assert figures == pytest.approx(truth, abs=5e-5)
        assert row[7] == f"{test['wins']}/{test['ties']}/{test['losses']}"
    swapped = make_page(runs, "--baseline", str(runs[1])).table("wins/ties/losses")
    assert swapped[0][0] == "small"
    assert as_number(swapped[0][2]) == -as_number(rows[0][2])


def test_queries_are_listed_with_the_largest_differences_first(runs: list[Path], data: Path):
    page = make_page(runs)
    qrels = read_qrels(data / "qrels.dev.txt")
    base, other = (evaluate_run(qrels, rank(1000 * s + 40), MEASURES).per_query for s in (1, 2))
    tables = [rows for rows in page.tables if rows[0][:2] == ["query", "text"]]
    assert len(tables) == len(MEASURES)
    for measure, (header, *rows) in zip(MEASURES, tables, strict=True):
        assert header[2:] == ["small", "large", "difference"]
        differing = {q for q in QUERIES if abs(base[measure][q] - other[measure][q]) > 1e-9}
        assert {row[0] for row in rows} == differing
        for query_id, text, *figures in rows:
            assert text == f"Text of {query_id}?"
            before, after = base[measure][query_id], other[measure][query_id]
            assert [as_number(figure) for figure in figures] == pytest.approx(
                [before, after, after - before], abs=5e-5
            )
        sizes = [abs(other[measure][row[0]] - base[measure][row[0]]) for row in rows]
        assert sizes == sorted(sizes, reverse=True)
        wins = sum(other[measure][q] > base[measure][q] + 1e-9 for q in QUERIES)
        assert f"{wins} better, {30 - len(rows)} equal, {len(rows) - wins} worse" in page.shown


def test_only_what_differs_is_in_the_table_of_differences(runs: list[Path]):
    about = json.loads((runs[1] / "run.json").read_text())
    about["packages"]["jax"] = "0.11.0"
    about["sha256"] |= {"groups.jsonl": "b" * 64}
    (runs[1] / "run.json").write_text(json.dumps(about))
    header, *rows = next(rows for rows in make_page(runs).tables if rows[0][0] == "")
    assert header[1:] == ["small", "large"]
    assert sorted(rows) == [
        ["content of groups.jsonl", "\N{EN DASH}", "b" * 12],
        ["optimizer.learning_rate", "0.0001", "0.0003"],
        ["package jax", "0.10.2", "0.11.0"],
        ["training.seed", "1", "2"],
    ]


def test_curves_tell_every_value(runs: list[Path]):
    page = make_page(runs)
    for name in ("Training loss", "RR@10 on the dev queries", "Learning rate"):
        assert name in page.shown
    for line in read_lines(runs[0]):
        if "dev/RR@10" in line:
            assert f"small, step {line['step']}: {line['dev/RR@10']:.4g}" in page.words
        if "pairs_per_s" in line:
            assert f"small, step {line['step']}: {line['pairs_per_s']:.4g}" in page.words


def test_whatever_stands_in_files_stays_text(tmp_path: Path):
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'>"
    data = collection(tmp_path / "questions")
    queries = [{"_id": query_id, "text": evil} for query_id in QUERIES]
    (data / "queries.jsonl").write_text("".join(json.dumps(line) + "\n" for line in queries))
    folders = [tmp_path / "<b>one<b>", tmp_path / "&two"]
    for seed, folder in enumerate(folders):
        write_training_run(
            folder, data, seed=seed, model={"init_from": f"{seed}{evil}", evil: seed}
        )
        write_metrics(folder, [*read_lines(folder), {"step": 40, "time_s": 0.0, evil: 1.0}])
    page = make_page(folders)
    assert page.elements.count("script") == 1
    assert "img" not in page.elements
    assert evil in page.words
    assert "<b>one<b>" in page.words


def test_a_run_alone_is_compared_with_its_first_stage(runs: list[Path]):
    page = make_page(runs[:1])
    assert "Training run small" in page.shown
    assert [row[0] for row in page.table("against first stage")] == ["small", "small"]
    assert not [rows for rows in page.tables if rows[0][0] == ""]
    assert "All options of small" in page.shown


def test_an_unfinished_run_is_shown_as_far_as_it_got(runs: list[Path]):
    about = json.loads((runs[1] / "run.json").read_text())
    (runs[1] / "run.json").write_text(json.dumps(about | {"status": "running"}))
    kept = [line for line in read_lines(runs[1]) if line["step"] <= 30]
    write_metrics(runs[1], kept)
    with (runs[1] / "metrics.jsonl").open("a") as file:
        file.write('{"step": 32, "lo')
    page = make_page(runs)
    row = page.table("commit")[1]
    assert row[2] == "30 not finished"
    # Its last milestone counts, though a file of a later one lies there.
    value = next(line["dev/RR@10"] for line in kept if "dev/RR@10" in line)
    assert row[3].startswith(f"{value:.4f}")
    base = next(line["dev/RR@10"] for line in read_lines(runs[0])[::-1] if "dev/RR@10" in line)
    difference = page.table("wins/ties/losses")[0][2]
    assert as_number(difference) == pytest.approx(value - base, abs=5e-5)
    (runs[1] / "metrics.jsonl").unlink()
    assert make_page(runs[::-1]).table("commit")[0][2] == "0 not finished"
    assert "Nothing was logged yet." in make_page(runs[1:]).shown


def test_runs_without_dev_measures_have_curves_alone(runs: list[Path]):
    for folder in runs:
        lines = [line for line in read_lines(folder) if "loss" in line]
        write_metrics(folder, lines)
    page = make_page(runs)
    assert "large was not measured on dev queries." in page.shown
    assert "Training loss" in page.shown
    assert page.tables[0][0][3] == "pairs/s"
    assert not any("wins/ties/losses" in rows[0] for rows in page.tables)


def test_runs_on_other_queries_or_judgements_are_not_tested(runs: list[Path], data: Path):
    other = write_training_run(runs[0].parent / "other", data, seed=3, queries=QUERIES[:20])
    about = json.loads((runs[1] / "run.json").read_text())
    about["sha256"] = {f"{data}/qrels.dev.txt": "c" * 64}
    (runs[1] / "run.json").write_text(json.dumps(about))
    page = make_page([*runs, other])
    assert not any("wins/ties/losses" in rows[0] for rows in page.tables)
    assert "other is not compared: other queries than small." in page.shown
    assert "large is not compared: other judgements than small." in page.shown
    assert "not tested: other queries than small" in page.table("commit")[2][3]


def test_a_folder_of_an_older_release_has_no_values_of_single_queries(runs: list[Path]):
    for path in (runs[1] / "dev").iterdir():
        path.unlink()
    page = make_page(runs)
    assert "large has no values of single queries: an older release trained it" in page.shown
    assert "large is not compared: large has no values of single queries." in page.shown


def test_a_collection_that_has_gone_leaves_ids_alone(runs: list[Path], data: Path):
    (data / "queries.jsonl").unlink()
    page = make_page(runs)
    assert [rows[0] for rows in page.tables if rows[0][0] == "query"] == [
        ["query", "small", "large", "difference"]
    ] * 2
    assert "Texts of the queries are left out, since the collection is not there." in page.shown


def test_many_runs_keep_their_colours_apart(runs: list[Path], data: Path):
    more = [write_training_run(runs[0].parent / f"n{n}", data, seed=n + 3) for n in range(8)]
    page = make_page([*runs, *more])
    assert len(page.table("commit")) == 10
    classes = [value for name, value in page.attributes if name == "class" and value]
    dots = [value for value in classes if value.startswith("dot ")]
    assert len(set(dots)) == 10
    assert "It stands alone: it is not corrected for several comparisons." in page.shown


def test_runs_of_the_same_name_are_told_apart_by_their_paths(tmp_path: Path, data: Path):
    folders = [
        write_training_run(tmp_path / place / "run", data, seed=seed)
        for seed, place in enumerate("ab")
    ]
    rows = make_page(folders).table("commit")
    assert [row[0].split()[0] for row in rows] == [str(folder) for folder in folders]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{data}"], "questions: not a run folder; run.json is not there"),
        (["{run}", "none"], "none: not a run folder"),
        (["{run}", "{run}"], " is given twice"),
        (["{run}", "--baseline", "other"], "other is not among the runs"),
        (["--output", "x.html"], "runs"),
        (["{run}", "--output", "{data}"], "a file is to be written here, this is a folder"),
        (["{run}", "--outptu", "x"], "did you mean 'output'?"),
    ],
)
def test_what_cannot_be_compared_is_one_line_with_status_2(
    runs: list[Path],
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
):
    monkeypatch.chdir(runs[0].parent)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    filled = [argument.format(data=data, run=runs[0]) for argument in arguments]
    monkeypatch.setattr(sys, "argv", ["compare", *filled])
    with pytest.raises(SystemExit) as exit_status:
        run(compare.main)
    assert exit_status.value.code == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert words in printed.err
    assert printed.out == ""
    assert not list(runs[0].parent.glob("*.html"))


def test_another_programs_run_json_is_named(runs: list[Path]):
    (runs[0] / "run.json").write_text('{"config": "a.yaml"}')
    with pytest.raises(InputError, match=r"run.json: 'config': got 'a.yaml'; jaxrank.train did"):
        make_page(runs)


@pytest.mark.parametrize(
    ("file", "line", "words"),
    [
        ("metrics.jsonl", '{"loss": 1.0}', r"metrics.jsonl:24: 'step': got None"),
        ("metrics.jsonl", '{"step": 1, "loss": "1"}', r"metrics.jsonl:24: 'loss': got '1'"),
        ("metrics.jsonl", "loss", r"metrics.jsonl:24: not valid JSON"),
        ("run.json", "}", r"run.json: not valid JSON"),
        ("dev/step-000040.jsonl", "{}", r"step-000040.jsonl:31: 'query_id'"),
    ],
)
def test_a_damaged_file_is_named(runs: list[Path], file: str, line: str, words: str):
    with (runs[0] / file).open("a") as lines:
        lines.write(line + "\n")
    with pytest.raises(InputError, match=words):
        make_page(runs)
