"""Cases with all their sides: values compared, failures recorded, missing rivals named."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrank.benchmarking.cases import Case, ModelShape, ScanShape
from jaxrank.benchmarking.floors import Work
from jaxrank.benchmarking.operations import Prepared
from jaxrank.benchmarking.rivals import RivalMissingError, load_rivals
from jaxrank.benchmarking.run import is_out_of_memory, run_benchmarks
from jaxrank.benchmarking.timing import CompiledSide, Rounds
from jaxrank.errors import InputError

SCAN = Case("scan", ScanShape(1, 16, 8), "forward", "float32")
ONCE = Rounds(warmup=1, repeats=1, least_s=0.0)


class Doubled(CompiledSide):
    """A rival that yields 2 x where we yield x + x."""

    parameters: int | None = None

    def __init__(self, case: Case, *, factor: float = 2.0) -> None:
        super().__init__(lambda x: factor * x, [(jnp.ones(3),)], names=["y"])


def ours(case: Case, implementation: str) -> Prepared:
    if implementation == "hungry":
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9999 bytes")
    side = CompiledSide(lambda x: x + x, [(jnp.ones(3),)], names=["y"])
    return Prepared(side, [Work("a", matmul=1.0)], parameters=5)


def run(rivals: Mapping[str, Any], *implementations: str, case: Case = SCAN) -> tuple[Any, list]:
    said: list[str] = []
    report = run_benchmarks(
        [case],
        implementations=implementations or ("auto",),
        rivals=rivals,
        rounds=ONCE,
        make_ours=ours,
        say=said.append,
    )
    return report.rows, said


def test_a_rival_is_compared_in_value_and_in_speed() -> None:
    rows, _ = run({"other": Doubled, "wrong": lambda case: Doubled(case, factor=3.0)})
    assert [row.side for row in rows] == ["jaxrank", "other", "wrong"]
    assert rows[0].difference is rows[0].speed_of_ours is None
    assert rows[1].difference == 0.0
    assert rows[2].difference == pytest.approx(0.5)
    assert rows[1].speed_of_ours == pytest.approx(rows[1].median_ms / rows[0].median_ms)


def test_want_of_memory_makes_a_row_and_the_others_go_on() -> None:
    def greedy(case: Case) -> Doubled:
        raise MemoryError

    rows, _ = run({"greedy": greedy, "other": Doubled}, "hungry", "auto")
    failed = {row.side: row.failed for row in rows}
    assert failed == {
        "jaxrank": None,
        "other": None,
        "jaxrank hungry": "out of memory",
        "greedy": "out of memory",
    }


def test_any_other_failure_is_a_row_with_one_line() -> None:
    def broken(case: Case) -> Doubled:
        raise TypeError("first line\nsecond line")

    rows, _ = run({"broken": broken})
    assert rows[1].failed == "TypeError: first line"
    assert rows[1].median_ms is None


def test_a_missing_rival_is_named_with_its_reason_and_another_subject_is_not() -> None:
    def missing(case: Case) -> Doubled:
        raise RivalMissingError("mamba_ssm not installed")

    rows, said = run({"mamba_ssm": missing, "elsewhere": lambda case: None})
    assert said == ["mamba_ssm: left out of scan, mamba_ssm not installed"]
    assert [row.side for row in rows] == ["jaxrank"]


def test_a_rival_of_another_size_or_shape_is_no_rival_and_ours_goes_on() -> None:
    def larger(case: Case) -> Doubled:
        rival = Doubled(case)
        rival.parameters = 6
        return rival

    class Longer(Doubled):
        def values(self) -> Mapping[str, Any]:
            return {"y": np.ones(4)}

    rows, _ = run({"larger": larger, "longer": Longer, "other": Doubled})
    failed = {row.side: row.failed or "" for row in rows}
    assert failed["jaxrank"] == failed["other"] == ""
    assert "6 parameters, ours 5" in failed["larger"]
    assert failed["longer"].startswith("ValueError")


def test_a_rate_is_pairs_over_the_median() -> None:
    case = Case("score", ModelShape("bert-tiny", 4, 16), "forward", "float32")
    rows, _ = run({}, case=case)
    assert rows[0].pairs_per_s == pytest.approx(4 / (1e-3 * rows[0].median_ms))
    assert rows[0].floor_ms is None  # a CPU's is not known


def test_an_unknown_implementation_is_refused_before_anything_runs() -> None:
    with pytest.raises(
        InputError, match=r"'msaic' is no implementation of selective_scan.*known are auto"
    ):
        run_benchmarks([SCAN], implementations=["msaic"], rounds=ONCE)


def test_no_memory_is_told_from_other_failures() -> None:
    class OutOfMemoryError(Exception):
        pass

    assert is_out_of_memory(OutOfMemoryError())
    assert is_out_of_memory(RuntimeError("CUDA out of memory. Tried to"))
    assert not is_out_of_memory(ValueError("shape"))


def test_a_plug_in_without_rivals_is_refused() -> None:
    for name, message in (("no.such.module", "cannot be imported"), ("json", "no dictionary")):
        with pytest.raises(InputError, match=message):
            load_rivals(name)


def test_implementations_of_one_operation_are_sides_of_one_case() -> None:
    rows = run_benchmarks([SCAN], implementations=["scan", "reference"], rounds=ONCE).rows
    assert [row.side for row in rows] == ["jaxrank scan", "jaxrank reference"]
    assert [row.failed for row in rows] == [None, None]
