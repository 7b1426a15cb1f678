"""A run folder's metrics become a picture."""

from pathlib import Path

import numpy as np
from matplotlib.image import imread

from jaxrank.training.metrics import MetricsLog
from jaxrank.training.plot import plot_training


def is_drawn(path: Path) -> np.ndarray:
    """Which of the picture's pixels are not white."""
    return (imread(path)[:, :, :3] < 1).any(axis=2)


def write_metrics(folder: Path, *, with_dev: bool) -> None:
    with MetricsLog(folder, tensorboard=False) as metrics:
        if with_dev:
            metrics.log(0, {"first_stage/RR@10": 0.5})
        for step in (10, 20, 30):
            metrics.log(step, {"loss": 2.0 / step})
        if with_dev:
            metrics.log(30, {"dev/RR@10": 0.7})


def test_loss_and_dev_measures_are_drawn_side_by_side(tmp_path: Path) -> None:
    write_metrics(tmp_path, with_dev=True)
    path = plot_training(tmp_path)
    assert path.name == "training.png"
    left, right = np.array_split(is_drawn(path), 2, axis=1)
    assert left.any()
    assert right.any()


def test_a_run_without_dev_measure_is_drawn_too(tmp_path: Path) -> None:
    for name, with_dev in (("with", True), ("without", False)):
        write_metrics(tmp_path / name, with_dev=with_dev)
    with_dev, without = (is_drawn(plot_training(tmp_path / n)) for n in ("with", "without"))
    half = with_dev.shape[1] // 2
    assert with_dev[:, half:].sum() != without[:, half:].sum()
