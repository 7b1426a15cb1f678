import gzip
from pathlib import Path

import pytest

from jaxrank.errors import InputError
from jaxrank.evaluation.qrels import read_qrels


def write(folder: Path, text: str) -> Path:
    path = folder / "qrels.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_trec_columns_are_separated_by_blanks_or_tabs(tmp_path: Path) -> None:
    path = write(tmp_path, "q1 0 d1 1\nq1\t0\td2\t0\n\nq2  Q0   d1  -2\r\n")
    assert read_qrels(path) == {"q1": {"d1": 1, "d2": 0}, "q2": {"d1": -2}}


def test_beir_files_have_three_columns_under_a_header(tmp_path: Path) -> None:
    path = write(tmp_path, "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0")
    assert read_qrels(path) == {"q1": {"d1": 2, "d2": 0}}


def test_a_bom_and_gzip_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "qrels.txt.gz"
    path.write_bytes(gzip.compress("\ufeffq1 0 d1 1\n".encode()))
    assert read_qrels(path) == {"q1": {"d1": 1}}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("q1 0 d1 1\nq1 0 d2 good\n", 2, "grade 'good'"),
        ("q1 0 d1 1.0\n", 1, "grade '1.0'"),
        ("q1 0 d1 1001\n", 1, "grade '1001'"),
        ("q1 0 d1 1000000000\n", 1, "grade '1000000000'"),
        ("q1 0 d1 1_0\n", 1, "grade '1_0'"),
        ("q1 0 d1 1\nq1 0 d2\n", 2, "3 columns"),
        ("q1 0 d1 1\nq1 0 d2 1 x\n", 2, "5 columns"),
        ("q1 d1\n", 1, "2 columns"),
        ("q1 0 d1 1\nq2 0 d1 1\nq1 0 d1 0\n", 3, "a second time"),
        ("q1\td1\t1\n", 1, "header"),
        ("query-id\tcorpus-id\tscore\nq1 d1 1\n", 2, "1 columns"),
        ("query-id\tcorpus-id\tscore\nq1\t\t1\n", 2, "empty id"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, line: int, words: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError) as error:
        read_qrels(path)
    assert str(error.value).startswith(f"{path}:{line}: ")
    assert words in str(error.value)


@pytest.mark.parametrize("text", ["", "\n\n", "query-id\tcorpus-id\tscore\n"])
def test_a_file_without_judgements_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="no judgements"):
        read_qrels(write(tmp_path, text))


def test_bytes_that_are_not_utf8_are_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "qrels.txt"
    path.write_bytes(b"q1 0 d1 1\nq1 0 d\xff 1\n")
    with pytest.raises(InputError, match=r"qrels.txt:2: .*UTF-8"):
        read_qrels(path)
