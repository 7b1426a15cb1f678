"""The picture of the speed table: milliseconds a query over the length of documents."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxrank.files import atomic_open
from scripts.document_states.speed_rows import Line, Place, Row, at

STYLES: dict[Place, str] = {"full pass": "o--", "memory": "s-", "page cache": "v-.", "disk": "^:"}
_DPI = 110


def plot_rows(rows: Sequence[Row], path: Path, candidates: int) -> None:
    """Draw all lines, a colour a model; both axes are logarithmic."""
    # Drawn without pyplot, which would choose a window system and keep global state.
    figure = Figure(figsize=(9, 5), layout="constrained", dpi=_DPI)
    axes = figure.subplots()
    lines = list(dict.fromkeys(row.line for row in rows if _is_drawn(row.line)))
    models = list(dict.fromkeys(line.model for line in lines))
    for line in lines:
        points = sorted(at(rows, line).items())
        axes.plot(
            [length for length, _ in points],
            [ms for _, ms in points],
            STYLES[line.place],
            color=f"C{models.index(line.model)}",
            markersize=4,
            label=str(line),
        )
    lengths = sorted({row.length for row in rows})
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
    axes.set(xlabel="tokens of a document", ylabel=f"ms for a query's {candidates} candidates")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", fontsize="x-small")
    with atomic_open(path, "wb") as file:
        FigureCanvasAgg(figure).print_png(file)


def _is_drawn(line: Line) -> bool:
    """In bfloat16 the lines would lie on those of float32."""
    return line.dtype == "float32"
