"""Values of single queries: what is written is read, and what is not ours is named."""

from pathlib import Path

import pytest

from jaxrank.errors import InputError
from jaxrank.training.per_query import milestone_file, read_per_query, write_per_query

VALUES = {"RR@10": {"q1": 1 / 3, "q2": 0.0}, "nDCG@10": {"q1": 0.1 + 0.2, "q2": 1.0}}


def test_values_come_back_to_the_last_bit(tmp_path: Path):
    path = milestone_file(tmp_path, 120)
    write_per_query(path, VALUES)
    assert path == tmp_path / "dev" / "step-000120.jsonl"
    assert len(path.read_text().splitlines()) == 2
    assert read_per_query(path) == VALUES


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"RR@10": 1.0, "nDCG@10": 1.0}', r"3: 'query_id': got None"),
        ('{"query_id": "q3", "RR@10": 1.0}', r"3: has \['RR@10'\]; the first line has"),
        ('{"query_id": "q2", "RR@10": 1.0, "nDCG@10": 1.0}', r"3: query 'q2' was there before"),
        ('{"query_id": "q3", "RR@10": "1", "nDCG@10": 1.0}', r"3: 'RR@10': got '1'"),
        ('{"query_id": "q3", "RR', r"3: not valid JSON"),
    ],
)
def test_a_line_that_is_not_ours_is_named(tmp_path: Path, line: str, message: str):
    path = milestone_file(tmp_path, 1)
    write_per_query(path, VALUES)
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match=f"step-000001.jsonl:{message}") as error:
        read_per_query(path)
    assert "\n" not in str(error.value)
