from pathlib import Path
from types import SimpleNamespace

import pytest

from jaxrank.errors import InputError
from jaxrank.evaluation.query_values import (
    QueryValues,
    document_lengths,
    query_lengths,
    read_values,
    values_for,
)

QRELS = {"q1": {"d1": 1, "d2": 2, "d3": 0}, "q2": {"d3": 0}, "q3": {"gone": 1, "d1": 1}}
TEXTS = SimpleNamespace(
    queries={"q1": "what  is\tasthma", "q2": "acne"},
    documents={"d1": "one two", "d2": "one two three four", "d3": "one"},
)


def test_query_length_is_in_words() -> None:
    assert query_lengths(QRELS, TEXTS) == QueryValues("query_length", {"q1": 3.0, "q2": 1.0})


def test_document_length_is_the_mean_of_the_relevant_ones_that_are_there() -> None:
    found = document_lengths(QRELS, TEXTS)
    assert found.values == {"q1": 3.0, "q3": 2.0}
    assert found.remarks == ("document_length: 1 relevant documents are not in the collection",)


def test_a_file_gives_any_number(tmp_path: Path) -> None:
    path = tmp_path / "position.tsv"
    path.write_text("q1\t3\n\nq2\t-1.5e1\n")
    assert read_values(path) == QueryValues("position", {"q1": 3.0, "q2": -15.0})


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("q1 3", "1 columns; 'query<tab>number'"),
        ("q1\t3\tx", "3 columns"),
        ("q1\tlong", "got 'long'; a finite number"),
        ("q1\tnan", "got 'nan'"),
        ("q1\t1_0", "got '1_0'"),
        ("q0\t1", "query 'q0' was there before"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "values.tsv"
    path.write_text(f"q0\t1\n{line}\n")
    with pytest.raises(InputError) as error:
        read_values(path)
    assert str(error.value).startswith(f"{path}:2: ")
    assert words in str(error.value)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.tsv").write_text("\n")
    with pytest.raises(InputError, match="no values"):
        read_values(tmp_path / "empty.tsv")


def test_an_item_names_what_and_where_slices_begin(tmp_path: Path) -> None:
    (tmp_path / "v.tsv").write_text("q1\t3\n")
    assert values_for("query_length", QRELS, TEXTS)[1] == []
    assert values_for("document_length:3,7.5", QRELS, TEXTS)[1] == [3.0, 7.5]
    values, edges = values_for(f"{tmp_path}/v.tsv:2", QRELS, None)
    assert (values.name, edges) == ("v", [2.0])


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("query_length", "query_length needs texts; give their folder with --collection"),
        (
            "query_lenght",
            "'query_lenght' is neither query_length nor document_length nor a TSV file",
        ),
        ("query_lenght:5,9", "with edges as in query_length:5,9"),
        (
            "query_length:a,b",
            "'query_length:a,b': edges are numbers, e.g. query_length:5,9; got 'a'",
        ),
        ("query_length:3,,5", "edges are numbers, e.g. query_length:5,9; got ''"),
    ],
)
def test_a_bad_item_is_named(item: str, words: str) -> None:
    with pytest.raises(InputError) as error:
        values_for(item, QRELS, None)
    assert words in str(error.value)


def test_queries_of_a_file_that_have_no_judgements_are_counted(tmp_path: Path) -> None:
    (tmp_path / "v.tsv").write_text("q1\t3\nq8\t1\nq9\t1\n")
    values, _ = values_for(str(tmp_path / "v.tsv"), QRELS, None)
    assert values.remarks == ("v: 2 of its 3 queries are not in the judgements",)
