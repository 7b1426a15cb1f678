import gzip
import math
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxrank.errors import InputError
from jaxrank.evaluation.runs import Run, iter_run, ranking, read_run, write_run


def float32_scores(path: Path) -> np.ndarray:
    return np.array([line.split()[4] for line in path.read_text().splitlines()], np.float32)


def test_a_run_is_read_by_its_scores_not_its_ranks(tmp_path: Path) -> None:
    path = tmp_path / "a.run"
    path.write_text("q1 Q0 d1 7 1.5 tag\nq1\tQ0\td2\t1\t-2e-3\ttag\n\nq2 Q0 d1 1 3 tag")
    assert read_run(path) == {"q1": {"d1": 1.5, "d2": -0.002}, "q2": {"d1": 3.0}}


def test_a_gzip_run_with_a_bom_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.run.gz"
    path.write_bytes(gzip.compress("\ufeffq1 Q0 d1 1 2.0 tag\r\n".encode()))
    assert read_run(path) == {"q1": {"d1": 2.0}}


def test_a_run_is_read_query_by_query_as_it_is_read_whole(tmp_path: Path) -> None:
    lines = [f"q{n // 3} Q0 d{n % 3} {n} {n / 7} tag\n" for n in (8, 6, 7, 0, 2, 1, 5, 3, 4)]
    path = tmp_path / "a.run.gz"
    path.write_bytes(gzip.compress("".join(lines).encode()))
    assert list(iter_run(path)) == list(read_run(path).items())
    assert [query_id for query_id, _ in iter_run(path)] == ["q2", "q0", "q1"]


def test_reading_query_by_query_is_lazy(tmp_path: Path) -> None:
    path = tmp_path / "a.run"
    path.write_text("q1 Q0 d1 1 2.0 tag\nq2 Q0 d1 1 2.0 tag\nq3 Q0 d1 1 bad tag\n")
    results = iter_run(path)
    assert next(results) == ("q1", {"d1": 2.0})
    with pytest.raises(InputError, match="score 'bad'"):
        list(results)


def test_reading_query_by_query_holds_no_more_than_one_query(tmp_path: Path) -> None:
    path = tmp_path / "a.run"
    peaks = []
    for num_queries in (2, 40):
        lines = [f"q{n // 500} Q0 d{n % 500} 1 {n} tag\n" for n in range(500 * num_queries)]
        path.write_text("".join(lines))
        tracemalloc.start()
        assert sum(len(scores) for _, scores in iter_run(path)) == 500 * num_queries
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0], peaks


def test_a_query_whose_lines_are_not_together_is_refused_with_the_mend(tmp_path: Path) -> None:
    path = tmp_path / "a.run"
    path.write_text("q1 Q0 d1 1 2 tag\nq2 Q0 d1 1 2 tag\nq1 Q0 d2 2 1 tag\n")
    assert read_run(path)["q1"] == {"d1": 2.0, "d2": 1.0}
    with pytest.raises(InputError, match=r"a\.run:3: query 'q1' comes again .*: sort -s -k1,1"):
        list(iter_run(path))


def read_query_by_query(path: Path) -> Run:
    return dict(iter_run(path))


@pytest.mark.parametrize("read", [read_run, read_query_by_query])
@pytest.mark.parametrize(
    ("lines", "line", "words"),
    [
        ("q1 Q0 d1 1 2.0\n", 1, "5 columns"),
        ("q1 Q0 d1 1 2.0 tag\nq1 Q0 d2 2 1.0 my tag\n", 2, "7 columns"),
        ("q1 Q0 d1 1 nan tag\n", 1, "score 'nan'"),
        ("q1 Q0 d1 1 inf tag\n", 1, "score 'inf'"),
        ("q1 Q0 d1 1 1e999 tag\n", 1, "score '1e999'"),
        ("q1 Q0 d1 1 1_0 tag\n", 1, "score '1_0'"),
        ("q1 Q0 d1 1 high tag\n", 1, "score 'high'"),
        ("q1 Q0 d1 1 2 tag\nq1 Q0 d2 1 2 tag\nq1 Q0 d1 2 1 tag\n", 3, "a second time"),
    ],
)
def test_a_bad_line_is_named(
    tmp_path: Path, read: Callable[[Path], Run], lines: str, line: int, words: str
) -> None:
    path = tmp_path / "a.run"
    path.write_text(lines)
    with pytest.raises(InputError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}:{line}: ")
    assert words in str(error.value)


def test_a_document_that_comes_again_after_other_queries_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.run"
    path.write_text("q1 Q0 d1 1 2 tag\nq2 Q0 d1 1 2 tag\nq1 Q0 d1 2 1 tag\n")
    with pytest.raises(InputError, match=r"a\.run:3: query 'q1' has document 'd1' a second time"):
        read_run(path)


@pytest.mark.parametrize("read", [read_run, read_query_by_query])
def test_an_empty_run_is_refused(tmp_path: Path, read: Callable[[Path], Run]) -> None:
    path = tmp_path / "a.run"
    path.write_text("\n")
    with pytest.raises(InputError, match="no results"):
        read(path)


def test_documents_are_written_by_falling_score_then_rising_id(tmp_path: Path) -> None:
    path = tmp_path / "a.run"
    write_run(path, {"q2": {"d3": 1.0, "d1": 1.0, "d2": 5.0}, "q1": {"d9": 0.0}}, tag="bm25")
    columns = [line.split() for line in path.read_text().splitlines()]
    assert [(c[0], c[2], c[3], c[5]) for c in columns] == [
        ("q2", "d2", "1", "bm25"),
        ("q2", "d1", "2", "bm25"),
        ("q2", "d3", "3", "bm25"),
        ("q1", "d9", "1", "bm25"),
    ]


@pytest.mark.parametrize(
    "scores",
    [
        [1.0, 1.0 + 1e-9, 1.0 - 1e-9, 1.0],
        [0.0] * 20,
        [-3.5] * 4 + [-3.5000002, -3.6],
        [1e30, 1e30, 1e-38, 0.0, -0.0, -1e-45],
        np.random.default_rng(0).normal(size=300).astype(np.float32).round(2).tolist(),
        (np.random.default_rng(1).normal(size=300) * 1e-30).tolist(),
    ],
)
def test_written_scores_decrease_strictly_as_float32(tmp_path: Path, scores: list[float]) -> None:
    path = tmp_path / "a.run"
    run = {"q": {f"d{i:03}": score for i, score in enumerate(scores)}}
    write_run(path, run, tag="t")
    assert (np.diff(float32_scores(path)) < 0).all()
    again = read_run(path)
    assert ranking(again["q"]) == ranking(run["q"])
    write_run(tmp_path / "b.run", again, tag="t")
    assert (tmp_path / "b.run").read_bytes() == path.read_bytes()


def test_scores_without_ties_are_written_exactly_as_float32(tmp_path: Path) -> None:
    scores = np.random.default_rng(2).normal(size=200).astype(np.float32)
    write_run(tmp_path / "a.run", {"q": {f"d{i}": float(s) for i, s in enumerate(scores)}}, tag="t")
    assert (float32_scores(tmp_path / "a.run") == np.sort(scores)[::-1]).all()


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, 1e39])
def test_a_score_that_is_not_finite_leaves_the_old_run(tmp_path: Path, score: float) -> None:
    path = tmp_path / "a.run"
    path.write_text("old")
    with pytest.raises(InputError, match=r"'q'.*'d2'.*finite"):
        write_run(path, {"p": {"d1": 1.0}, "q": {"d1": 0.5, "d2": score}}, tag="t")
    assert [file.name for file in tmp_path.iterdir()] == ["a.run"]
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    ("run", "tag"),
    [({"q 1": {"d": 1.0}}, "t"), ({"q": {"d 1": 1.0}}, "t"), ({"q": {"d": 1.0}}, "a tag")],
)
def test_blanks_in_ids_and_tags_are_refused(
    tmp_path: Path, run: dict[str, dict[str, float]], tag: str
) -> None:
    with pytest.raises(InputError, match="blanks"):
        write_run(tmp_path / "a.run", run, tag=tag)
    assert not list(tmp_path.iterdir())
