"""Rows of the speed table: what a query's candidates take, ratios, and where lines cross."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from scripts.document_states.report import Promise, markdown_table

Place = Literal["full pass", "memory", "page cache", "disk"]
STATES: tuple[Place, ...] = ("memory", "page cache", "disk")

LEAST_SPEEDUP: dict[Place, float] = {"memory": 25.0, "page cache": 15.0, "disk": 15.0}
"""Over the full pass, at SPEEDUP_LENGTH, in float32."""
SPEEDUP_LENGTH = 512
LEAST_FROM_DEVICE = 0.9
"""Of the states' bytes: else "disk" would be a name for the page cache."""
MOST_GROWTH = 1.1
"""Of the time with states in memory from SPEEDUP_LENGTH on: slowest over fastest length."""


@dataclass(frozen=True)
class Line:
    """One way to score."""

    model: str
    place: Place
    """Where the states are; or that all is read anew."""
    dtype: str = "float32"
    """Of the states; the network computes in float32."""

    def __str__(self) -> str:
        if self.place == "full pass":
            return f"{self.model}, full pass"
        kind = "states" if self.model.startswith("mamba") else "prefix cache"
        return f"{self.model}, {kind} {self.dtype}, {self.place}"


@dataclass(frozen=True)
class Row:
    """What one line took at one length of documents."""

    line: Line
    length: int
    """Tokens of a document's side."""
    read: int
    """Tokens of a pair that the network was given in a query's time; a model without so many
    positions reads the first ones."""
    measured: int
    """Candidates that were computed; the time is scaled from them."""
    ms: float | None
    """Of a query with all its candidates: the median."""
    spread: float | None = None
    """(slowest - fastest) / median."""
    seconds: tuple[float, ...] = ()
    """Of each measurement, unscaled."""
    note: str = ""
    from_device: float | None = None
    """Of files that were dropped from memory: the share of the states' bytes that the kernel says
    were fetched from the device, the least of all repetitions."""


def at(rows: Sequence[Row], line: Line) -> dict[int, float]:
    """Length -> milliseconds of a line."""
    return {row.length: row.ms for row in rows if row.line == line and row.ms is not None}


def ratios(rows: Sequence[Row], of: Line, over: Line) -> dict[int, float]:
    """Length -> how many times as long `of` takes as `over`, where both were measured."""
    numerators, denominators = at(rows, of), at(rows, over)
    return {
        length: numerators[length] / denominators[length]
        for length in numerators
        if length in denominators
    }


def crossing(ratio: dict[int, float]) -> str:
    """From which length on a rival takes longer, between measured lengths by interpolation.

    The logarithm of the ratio is taken to be linear in the logarithm of the length.
    """
    if not ratio:
        return "not measured"
    lengths = sorted(ratio)
    if ratio[lengths[0]] >= 1:
        return f"below {lengths[0]}"
    for shorter, longer in pairwise(lengths):
        low, high = math.log(ratio[shorter]), math.log(ratio[longer])
        if low < 0 <= high:
            share = -low / (high - low)
            return f"{round(shorter * (longer / shorter) ** share):,}"
    return f"not up to {lengths[-1]:,}"


def make_promises(rows: Sequence[Row], preset: str) -> Iterator[Promise]:
    """How much faster states must be than a full pass, as far as it was measured."""
    full = Line(preset, "full pass")
    for place, least in LEAST_SPEEDUP.items():
        ratio = ratios(rows, full, Line(preset, place)).get(SPEEDUP_LENGTH)
        if ratio is not None:
            name = f"{preset}, full pass over float32 states, {place}, {SPEEDUP_LENGTH} tokens"
            yield Promise(name, ratio, least, "at least")
    for row in rows:
        if row.from_device is not None and row.length == SPEEDUP_LENGTH:
            name = f"share of the states that came from the device: {row.line}"
            yield Promise(name, row.from_device, LEAST_FROM_DEVICE, "at least")


def flatness(flat: dict[int, float]) -> Iterator[Promise]:
    """That the time with states in memory does not grow with the length of documents."""
    chosen = [ms for length, ms in flat.items() if length >= SPEEDUP_LENGTH]
    if len(chosen) > 1:
        name = f"slowest over fastest length from {SPEEDUP_LENGTH} tokens on, memory"
        yield Promise(name, max(chosen) / min(chosen), MOST_GROWTH)


def time_table(rows: Sequence[Row], candidates: int) -> str:
    """Milliseconds a query: a line a way to score, a column a length."""
    lengths = sorted({row.length for row in rows})
    table = []
    for line in dict.fromkeys(row.line for row in rows):
        own = {row.length: row for row in rows if row.line == line}
        table.append([str(line), *(_cell(own.get(length), candidates) for length in lengths)])
    return markdown_table([f"ms for {candidates} candidates", *map(_thousands, lengths)], table)


def ratio_table(rows: Sequence[Row], base: Line) -> str:
    """How many times as long each way takes as `base`, and from which length on it takes longer."""
    lengths = sorted(at(rows, base))
    table = []
    for line in dict.fromkeys(row.line for row in rows if row.line != base):
        ratio = ratios(rows, line, base)
        cells = [f"{ratio[length]:.2f}" if length in ratio else "" for length in lengths]
        where = crossing(ratio) if line.model != base.model or line.place == "full pass" else ""
        table.append([str(line), *cells, where])
    header = [f"time over that of {base}", *map(_thousands, lengths), "longer from"]
    return markdown_table(header, table)


def notes(rows: Sequence[Row], candidates: int) -> list[str]:
    """What the cells mean."""
    repeats = max(len(row.seconds) for row in rows)
    lines = [
        f"median of {repeats}, ± half of what lies between the slowest and the fastest",
        f"*: measured on fewer than {candidates} candidates and scaled",
        "c: cut to the model's positions",
        "crossings are interpolated between the measured lengths",
        "r: share of the states' bytes that came from the device, the least of all repetitions",
    ]
    return [*lines, *dict.fromkeys(row.note for row in rows if row.note)]


def as_values(row: Row) -> dict[str, object]:
    """For JSON."""
    return vars(row) | {"line": vars(row.line), "seconds": list(row.seconds)}


def _cell(row: Row | None, candidates: int) -> str:
    if row is None or row.ms is None or row.spread is None:
        return ""
    marks = "*" * (row.measured < candidates) + "c" * ("cut" in row.note)
    share = "" if row.from_device is None else f" r{row.from_device:.0%}"
    return f"{row.ms:,.0f}{marks} ±{row.spread / 2:.0%}{share}"


def _thousands(length: int) -> str:
    return f"{length:,}"
