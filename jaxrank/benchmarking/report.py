"""What was measured: rows, the machine, the command; as a table and as JSON, there and back."""

import json
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

from jaxrank.benchmarking.cases import Case
from jaxrank.benchmarking.timing import MemorySource, Timing
from jaxrank.errors import InputError
from jaxrank.files import atomic_open, read_json
from jaxrank.version import source_state

FORMAT = "jaxrank.bench 1"
OUT_OF_MEMORY = "out of memory"
_PACKAGES = (
    "jax", "jaxlib", "flax", "optax", "numpy", "torch", "transformers", "sentence-transformers",
    "peft", "mamba-ssm", "causal-conv1d", "flash-attn",
)  # fmt: skip
_MIB = 2**20


@dataclass(frozen=True)
class Row:
    """What one side of a case measured. Times are of one call, in milliseconds."""

    subject: str
    name: str
    """What distinguishes the case from others of its length: a preset, or widths."""
    shape: str
    direction: str
    dtype: str
    length: int
    batch: int
    side: str
    """`jaxrank`, with the implementation if one was named, or a rival's name."""
    median_ms: float | None = None
    low_ms: float | None = None
    high_ms: float | None = None
    calls: int | None = None
    """Queued and waited for together in a measurement."""
    compile_s: float | None = None
    temporary_mib: float | None = None
    peak_mib: float | None = None
    peak_source: MemorySource | None = None
    pairs_per_s: float | None = None
    floor_ms: float | None = None
    floor_share: float | None = None
    """Floor over median. Of `train` and `score` it is the model FLOPs utilisation, in PaLM's count:
    causal attention whole."""
    floor_terms_ms: Mapping[str, float] = field(default_factory=dict)
    """What each unit of the device needs at the least; see `floors`."""
    speed_of_ours: float | None = None
    """In a rival's row: its median over that of our first side, from this one run."""
    difference: float | None = None
    """In a rival's row: the largest difference from our values on the same inputs, over the largest
    value."""
    parameters: int | None = None
    failed: str | None = None
    """Why nothing was measured."""


@dataclass(frozen=True)
class Report:
    """Rows of one run, or of several that were put together."""

    rows: tuple[Row, ...]
    machine: Mapping[str, Any]
    command: str = ""

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        with atomic_open(path) as file:
            file.write(json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n")


def load_report(path: str | Path) -> Report:
    """Read what `save` wrote.

    Raises:
        InputError: no such file, or no report.
    """
    values = read_json(path)
    if values.get("format") != FORMAT:
        raise InputError(
            f"{path}: is no report of python -m jaxrank.bench; one with format {FORMAT!r} is needed"
        )
    try:
        rows = tuple(Row(**row) for row in values["rows"])
        return Report(rows, values["machine"], values["command"])
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: not as --json writes it ({error})") from None


def merge_reports(reports: Iterable[Report]) -> Report:
    """One report of all rows; machine and command are those of the first."""
    reports = list(reports)
    rows = tuple(row for report in reports for row in report.rows)
    return Report(rows, reports[0].machine, reports[0].command)


def make_row(case: Case, side: str, timing: Timing | None = None, **values: Any) -> Row:
    """A row of a case, with or without times."""
    row = Row(
        subject=case.subject,
        name=case.name,
        shape=str(case.shape),
        direction=case.direction,
        dtype=case.dtype,
        length=case.shape.length,
        batch=case.shape.batch,
        side=side,
        **values,
    )
    if timing is None:
        return row

    def mib(size: int | None) -> float | None:
        return None if size is None else size / _MIB

    return replace(
        row,
        median_ms=1e3 * timing.median_s,
        low_ms=1e3 * timing.low_s,
        high_ms=1e3 * timing.high_s,
        calls=timing.calls,
        compile_s=timing.compile_s,
        temporary_mib=mib(timing.temporary_bytes),
        peak_mib=mib(timing.peak_bytes),
        peak_source=timing.peak_source,
        pairs_per_s=None if case.pairs is None else case.pairs / timing.median_s,
    )


def describe_machine() -> dict[str, Any]:
    """Device, versions and commit: what a number means nothing without."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "device": jax.devices()[0].device_kind,
        "backend": jax.default_backend(),
        "devices": jax.device_count(),
        "processor": platform.processor() or platform.machine(),
        "versions": versions,
        "source": source_state(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def this_command() -> str:
    """How this process was called."""
    name = Path(sys.argv[0]).stem
    return " ".join([f"python -m jaxrank.{name}", *sys.argv[1:]])


COLUMNS = ("what", "shape", "side", "ms", "floor", "of it", "pairs/s", "peak MiB", "compile s",
           "speed of ours", "note")  # fmt: skip

LEGEND = (
    "ms: median (lowest-highest); floor: the least ms this device needs; of it: floor over ms; "
    "-: not known\n"
    "peak MiB: as the device's allocator (d), the compiler (c) or PyTorch's allocator (t) says; "
    "speed of ours: their ms over ours, above 1 ours is faster"
)
"""What the columns mean, to print below the table."""


def table(rows: Iterable[Row]) -> str:
    """The rows as a table of GitHub's Markdown, readable as it stands.

    `ms` is the median with the lowest and the highest measurement. A peak's source follows it: d
    the device's allocator, c the compiler, t PyTorch's allocator.
    """
    lines = [COLUMNS, *map(_cells, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    shown = [_line(line, widths) for line in lines]
    shown.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(shown)


def brief(row: Row) -> str:
    """A row in few words, for whoever waits."""
    done = row.failed or f"{_short(row.median_ms)} ms"
    return f"{row.subject} {row.direction}, {row.shape}, {row.side}: {done}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
    return "| " + " | ".join(padded) + " |"


def _cells(row: Row) -> tuple[str, ...]:
    def number(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    time = "-"
    if row.median_ms is not None:
        time = f"{_short(row.median_ms)} ({_short(row.low_ms)}-{_short(row.high_ms)})"
    peak = _short(row.peak_mib)
    if row.peak_source is not None:
        peak += f" {row.peak_source[0]}"
    note = row.failed or ""
    if row.difference is not None:
        note = f"differs by {row.difference:.0e}"
    return (
        f"{row.subject} {row.direction}",
        f"{row.shape}, {row.dtype}",
        row.side,
        time,
        "-" if row.floor_ms is None else _short(row.floor_ms),
        number(row.floor_share, ".0%"),
        number(row.pairs_per_s, ",.1f"),
        peak,
        number(row.compile_s, ".1f"),
        "" if row.speed_of_ours is None else f"{row.speed_of_ours:.2f}x",
        note,
    )


def _short(value: float | None) -> str:
    """Three digits, without an exponent."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
