"""Runs cases: builds their sides, compares values, times them in turn and makes rows."""

import gc
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args, get_type_hints

import jax
import numpy as np

from jaxrank.benchmarking.cases import Case
from jaxrank.benchmarking.floors import Work, find_device, floor_seconds, floor_terms
from jaxrank.benchmarking.networks import layer_side, score_side, train_side
from jaxrank.benchmarking.operations import Prepared, operation_side
from jaxrank.benchmarking.report import (
    OUT_OF_MEMORY,
    Report,
    Row,
    describe_machine,
    make_row,
    this_command,
)
from jaxrank.benchmarking.rivals import MakeRival, Rival, RivalMissingError
from jaxrank.benchmarking.timing import Rounds, Side, Timing, time_sides
from jaxrank.errors import InputError
from jaxrank.models.implementations import Implementations
from jaxrank.training.throughput import find_peak_tflops

MakeOurs = Callable[[Case, str], Prepared]
Say = Callable[[str], None]
OURS = "jaxrank"
_ON_GPU = ("mosaic", "cudnn")


def run_benchmarks(
    cases: Sequence[Case],
    *,
    implementations: Sequence[str] = ("auto",),
    rivals: Mapping[str, MakeRival] | None = None,
    rounds: Rounds | None = None,
    make_ours: MakeOurs | None = None,
    say: Say = lambda line: None,
    show: Callable[[Row], None] = lambda row: None,
) -> Report:
    """Measure cases, each with all its sides in turn.

    A side that fails (for want of memory, say) makes a row that says so, and the others go on.

    Args:
        implementations: of the operation that each case mixes its tokens with; a side for each.
        rivals: as `load_rivals` yields them.
        make_ours: builds our side in place of this room's own, for what it must not import.
        say: called with lines about what is left out.
        show: called with each row as soon as it is there.

    Raises:
        InputError: an implementation that is none of a case's, or that needs a GPU where is none.
    """
    if make_ours is None:
        _check_implementations(cases, implementations)
    rows: list[Row] = []
    told: set[str] = set()

    def say_once(line: str) -> None:
        if line not in told:
            told.add(line)
            say(line)

    for case in cases:
        for row in _run(
            case, implementations, rivals or {}, rounds or Rounds(), make_ours or _build, say_once
        ):
            rows.append(row)
            show(row)
    return Report(tuple(rows), describe_machine(), this_command())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of JAX, PyTorch or Python says that there is no memory left."""
    text = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "RESOURCE_EXHAUSTED" in text
        or "out of memory" in text.lower()
    )


def _run(
    case: Case,
    implementations: Sequence[str],
    rivals: Mapping[str, MakeRival],
    rounds: Rounds,
    make_ours: MakeOurs,
    say: Say,
) -> list[Row]:
    """The rows of a case: ours, one an implementation, then the rivals'."""
    failures: dict[str, str] = {}
    ours: dict[str, Prepared] = {}
    others: dict[str, Rival] = {}
    for implementation in implementations:
        name = OURS if implementation == "auto" else f"{OURS} {implementation}"
        try:
            prepared = make_ours(case, implementation)
            # The first call, so that a side without enough memory ends here.
            prepared.side.wait(prepared.side.queue(0))
            ours[name] = prepared
        except Exception as error:
            failures[name] = _reason(error)
        gc.collect()
    for name, make in rivals.items():
        try:
            rival = make(case)
            if rival is not None:
                rival.wait(rival.queue(0))
                others[name] = rival
        except RivalMissingError as missing:
            say(f"{name}: left out of {case.subject}, {missing}")
        except Exception as error:
            failures[name] = _reason(error)
        gc.collect()
    first = next(iter(ours), None)
    extra: dict[str, dict[str, Any]] = {
        name: {"parameters": prepared.parameters} for name, prepared in ours.items()
    }
    for name, rival in list(others.items()):
        extra[name] = {"parameters": rival.parameters}
        if first is None:
            continue
        try:
            _check_same_size(case, name, rival, ours[first])
            extra[name]["difference"] = _difference(ours[first].side, rival)
        except Exception as error:  # what cannot be compared is not timed, and ours goes on
            failures[name] = _reason(error)
            del others[name]
    sides: dict[str, Side] = {name: prepared.side for name, prepared in ours.items()} | others
    timings, lost = _time(sides, rounds)
    work = next((prepared.work for prepared in ours.values()), [])
    rows = []
    for name, timing in timings.items():
        if name in others and first in timings:
            extra[name]["speed_of_ours"] = timing.median_s / timings[first].median_s
        floor = _floor(case, work, timing.median_s)
        rows.append(make_row(case, name, timing, **extra[name], **floor))
    failures |= lost
    return rows + [make_row(case, name, failed=reason) for name, reason in failures.items()]


def _time(sides: Mapping[str, Side], rounds: Rounds) -> tuple[dict[str, Timing], dict[str, str]]:
    """Times of all sides in turn; if that fails, of each alone. And why some have none."""
    if not sides:
        return {}, {}
    try:
        return time_sides(sides, rounds), {}
    except Exception as error:
        if len(sides) == 1:
            return {}, dict.fromkeys(sides, _reason(error))
    timings: dict[str, Timing] = {}
    failures: dict[str, str] = {}
    for name, side in sides.items():
        timing, lost = _time({name: side}, rounds)
        timings |= timing
        failures |= lost
    return timings, failures


def _build(case: Case, implementation: str) -> Prepared:
    """Our side of a case."""
    makers = {"layer": layer_side, "train": train_side, "score": score_side}
    return makers.get(case.subject, operation_side)(case, implementation)


def _check_implementations(cases: Sequence[Case], implementations: Sequence[str]) -> None:
    """Refuse a name that is none of an operation's, and one that this device cannot run.

    `Implementations` knows the names.
    """
    hints = get_type_hints(Implementations)
    for case in cases:
        known = get_args(hints[case.operation])
        for name in implementations:
            if name not in known:
                preset = getattr(case.shape, "preset", "")
                what = f"{case.subject} of {preset}" if preset else case.subject
                raise InputError(
                    f"--implementation: {name!r} is no implementation of {case.operation}, which "
                    f"{what} uses; known are {', '.join(known)}"
                )
    backend = jax.default_backend()
    for name in implementations:
        if name in _ON_GPU and backend != "gpu":
            raise InputError(
                f"--implementation: {name!r} needs an NVIDIA GPU, and this is {backend}"
            )


def _check_same_size(case: Case, name: str, rival: Rival, ours: Prepared) -> None:
    if rival.parameters is not None:
        assert rival.parameters == ours.parameters, (
            f"{name} of {case} has {rival.parameters:,} parameters, ours {ours.parameters:,}"
        )


def _difference(ours: Side, rival: Side) -> float | None:
    """The largest difference of what both yield by the same name, over the largest value of it."""
    mine, theirs = ours.values(), rival.values()
    shared = mine.keys() & theirs.keys()
    if not shared:
        return None
    return max(
        float(np.max(np.abs(mine[name] - theirs[name])) / np.max(np.abs(mine[name])))
        for name in shared
    )


def _floor(case: Case, work: list[Work], median_s: float) -> dict[str, Any]:
    """What a row says of the floor on this device; nothing where it is not known."""
    kind = jax.devices()[0].device_kind
    if not work:
        return {}
    if case.subject in ("train", "score"):
        tflops = find_peak_tflops(kind)
        if tflops is None:
            return {}
        # Against the data sheet's bfloat16 figure whatever is computed in, as is usual.
        floor_s = sum(part.matmul for part in work) / (1e12 * tflops)
        return {"floor_ms": 1e3 * floor_s, "floor_share": floor_s / median_s}
    device = find_device(kind)
    if device is None:
        return {}
    floor_s = floor_seconds(work, device, case.dtype)
    terms = floor_terms(work, device, case.dtype)
    return {
        "floor_ms": 1e3 * floor_s,
        "floor_share": floor_s / median_s,
        "floor_terms_ms": {unit: 1e3 * seconds for unit, seconds in terms.items()},
    }


def _reason(error: Exception) -> str:
    """One line about a failure."""
    if is_out_of_memory(error):
        return OUT_OF_MEMORY
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"
