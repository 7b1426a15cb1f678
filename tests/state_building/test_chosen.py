"""Documents are chosen by a list or by the candidates of runs."""

from pathlib import Path

import pytest

from jaxrank.errors import InputError
from jaxrank.state_building.chosen import Chosen, from_list, from_runs

KNOWN = [f"d{number}" for number in range(6)]


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_a_list_keeps_its_order_and_counts_what_comes_again(tmp_path: Path) -> None:
    path = write(tmp_path / "ids", "\ufeffd3", "", " d1 ", "d3", "d3")
    assert from_list(path, KNOWN, where="c") == Chosen(["d3", "d1"], 2)


def test_runs_give_the_union_of_their_best_candidates(tmp_path: Path) -> None:
    first = write(tmp_path / "1", "q1 Q0 d0 1 1 t", "q1 Q0 d5 2 9 t", "q1 Q0 d4 3 5 t")
    second = write(tmp_path / "2", "q2 Q0 d4 1 9 t", "q2 Q0 d3 2 5 t", "q2 Q0 d2 3 1 t")
    assert from_runs([first, second], 2, KNOWN, where="c") == Chosen(["d5", "d4", "d3"])
    every = from_runs([first, second], None, KNOWN, where="c")
    assert every == Chosen(["d5", "d4", "d0", "d3", "d2"])


def test_what_is_not_known_is_named_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ids:2: document 'd9' is not in c; an id of it is"):
        from_list(write(tmp_path / "ids", "d1", "d9"), KNOWN, where="c")
    run = write(tmp_path / "run", "q1 Q0 d1 1 3 t", "q1 Q0 d9 2 1 t")
    with pytest.raises(InputError, match=r"run: query 'q1' has document 'd9', which c lacks"):
        from_runs([run], None, KNOWN, where="c")
    # Below the depth it is not asked for.
    assert from_runs([run], 1, KNOWN, where="c") == Chosen(["d1"])
