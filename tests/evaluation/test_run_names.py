from pathlib import Path

import pytest

from jaxrank.errors import InputError
from jaxrank.evaluation.run_names import name_runs


def test_runs_are_named_by_file_where_that_tells_them_apart() -> None:
    a, b = Path("x/bm25.test.run"), Path("x/new.run.gz")
    assert name_runs([a, b]) == {"bm25.test": a, "new": b}
    assert list(name_runs([a, b], baseline=b)) == ["new", "bm25.test"]
    assert list(name_runs([Path("x/a.run"), Path("y/a.run")])) == ["x/a.run", "y/a.run"]


def test_a_foreign_baseline_and_repeated_runs_are_refused() -> None:
    a, b = Path("a.run"), Path("b.run")
    with pytest.raises(InputError, match=r"b\.run is not among the runs; name one of a\.run"):
        name_runs([a], baseline=b)
    with pytest.raises(InputError, match=r"^runs: a\.run is given twice"):
        name_runs([a, a])
    with pytest.raises(InputError, match=r"^runs: none given"):
        name_runs([])
