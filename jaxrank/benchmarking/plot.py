"""Pictures of reports: time, rate and memory over the length of texts."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxrank.benchmarking.report import Row
from jaxrank.errors import InputError
from jaxrank.files import atomic_open

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_RATES = ("train", "score", "texts")
_COLUMNS = 3
_COLORS = 10


def plot_rows(rows: Sequence[Row], path: str | Path) -> None:
    """Draw a panel for each subject and direction, and one of memory for training.

    A line is a preset or a width under one side; of training and scoring it is pairs a second, of
    others milliseconds, with the device's floor dotted. What failed is not drawn.

    Raises:
        InputError: matplotlib is not installed, or no row has a time.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError(
            "--plot: matplotlib is not installed; install it, or write --json and draw elsewhere: "
            "python -m jaxrank.bench --from FILE --plot FILE"
        ) from None
    measured = [row for row in rows if row.median_ms is not None]
    if not measured:
        raise InputError("--plot: nothing was measured, so there is nothing to draw")
    kinds = list(dict.fromkeys((row.subject, row.direction) for row in measured))
    panels: list[tuple[str, str, str]] = [(*kind, "speed") for kind in kinds]
    weighed = {(row.subject, row.direction) for row in measured if row.peak_mib is not None}
    panels += [(*kind, "memory") for kind in kinds if kind[0] == "train" and kind in weighed]
    columns = min(_COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    # Drawn without pyplot, which would choose a window system and keep global state.
    figure = Figure(figsize=(6 * columns, 4.5 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).flat
    for axes, (subject, direction, what) in zip(grid, panels, strict=False):
        chosen = [row for row in measured if (row.subject, row.direction) == (subject, direction)]
        _draw(axes, chosen, what)
        axes.set_title(f"{subject} {direction}{', memory' if what == 'memory' else ''}")
    for axes in figure.axes[len(panels) :]:
        axes.set_axis_off()
    with atomic_open(path, "wb") as file:
        FigureCanvasAgg(figure).print_png(file)


def _draw(axes: "Axes", rows: Sequence[Row], what: str) -> None:
    names = list(dict.fromkeys((row.name, row.side) for row in rows))
    is_rate = rows[0].subject in _RATES
    for index, (name, side) in enumerate(names):
        own = sorted(
            (row for row in rows if (row.name, row.side) == (name, side)),
            key=lambda row: row.length,
        )
        color = f"C{index % _COLORS}"
        style = "o-" if index < _COLORS else "s--"
        values = [_value(row, what, is_rate=is_rate) for row in own]
        if not any(value is not None for value in values):
            continue  # no points, so no place in the legend
        # What has no value is a gap: nan is not drawn.
        points = [math.nan if value is None else value for value in values]
        lengths = [row.length for row in own]
        axes.plot(lengths, points, style, color=color, label=f"{name}, {side}")
        if what == "speed" and not is_rate:
            floors = [math.nan if row.floor_ms is None else row.floor_ms for row in own]
            axes.plot(lengths, floors, ":", color=color)
    lengths = sorted({row.length for row in rows})
    axes.set_xscale("symlog", base=2, linthresh=1)
    if what == "memory":
        axes.set_ylim(bottom=0)
    else:
        axes.set_yscale("log")
    axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
    ylabel = "pairs a second" if is_rate else "ms"
    axes.set(xlabel="tokens of a text", ylabel="peak, GiB" if what == "memory" else ylabel)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="x-small")


def _value(row: Row, what: str, *, is_rate: bool) -> float | None:
    if what == "memory":
        return None if row.peak_mib is None else row.peak_mib / 1024
    return row.pairs_per_s if is_rate else row.median_ms
