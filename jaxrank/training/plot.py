"""A picture of a training run: loss and dev measures over steps."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxrank.files import atomic_open
from jaxrank.training.metrics import read_metrics

PLOT_FILE = "training.png"


def plot_training(folder: str | Path) -> Path:
    """Draw `training.png` into a run folder from its metrics, and return the picture's path.

    Left: the training loss, each point the mean over the steps since the last one. Right: the dev
    measures at milestones, and as dashed lines what the first stage reaches on the same queries.
    """
    lines = read_metrics(folder)
    # Drawn without pyplot, which would choose a window system and keep global state.
    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, measures = figure.subplots(1, 2)
    _draw(losses, lines, "loss", label="training")
    losses.set(xlabel="step", ylabel="InfoNCE loss", title="Training", ylim=(0, None))
    _draw_measures(measures, lines)
    measures.set(xlabel="step", title="Dev questions", xlim=(0, None))
    for axes in (losses, measures):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    path = Path(folder) / PLOT_FILE
    with atomic_open(path, "wb") as file:
        FigureCanvasAgg(figure).print_png(file)
    return path


def _draw_measures(axes: Axes, lines: list[dict[str, Any]]) -> None:
    """One colour a measure: a line with points for the model, a dashed line for the first stage."""
    names = sorted({name.removeprefix("dev/") for line in lines for name in line if "dev/" in name})
    for index, name in enumerate(names):
        color = f"C{index}"
        _draw(axes, lines, f"dev/{name}", label=name, color=color, marker="o")
        for line in lines:
            if f"first_stage/{name}" in line:
                label = f"{name} of the first stage"
                axes.axhline(line[f"first_stage/{name}"], color=color, linestyle="--", label=label)
    if names:
        axes.legend()
    else:
        axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes)


def _draw(axes: Axes, lines: list[dict[str, Any]], name: str, **style: Any) -> None:
    points = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
    axes.plot([step for step, _ in points], [value for _, value in points], **style)
