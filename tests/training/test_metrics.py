"""The metrics log: JSON lines that survive a kill, and TensorBoard events with the same values."""

import resource
import threading
from pathlib import Path

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from jaxrank.training.metrics import METRICS_FILE, TENSORBOARD_FOLDER, MetricsLog, read_metrics


def read_events(folder: Path) -> dict[tuple[str, int], float]:
    """Scalars of TensorBoard's record files: 8 bytes length, 4 check, the event, 4 check."""
    scalars = {}
    for path in folder.glob("events.*"):
        content, start = path.read_bytes(), 0
        while start < len(content):
            length = int.from_bytes(content[start : start + 8], "little")
            event = event_pb2.Event.FromString(content[start + 12 : start + 12 + length])
            for value in event.summary.value:
                scalars[value.tag, event.step] = value.simple_value
            start += length + 16
    return scalars


def test_json_and_tensorboard_hold_the_same_values(tmp_path: Path):
    with MetricsLog(tmp_path) as log:
        log.log(10, {"loss": 1.5, "learning_rate": 1e-5})
        log.log(20, {"loss": 0.25})
        log.log(20, {"dev/RR@10": 0.75})
    lines = read_metrics(tmp_path)
    assert [(line["step"], line.get("loss"), line.get("dev/RR@10")) for line in lines] == [
        (10, 1.5, None),
        (20, 0.25, None),
        (20, None, 0.75),
    ]
    assert lines[0]["learning_rate"] == 1e-5
    assert lines[2]["time_s"] >= lines[0]["time_s"] >= 0
    events = read_events(tmp_path / TENSORBOARD_FOLDER)
    assert events[("loss", 10)] == 1.5
    assert events[("loss", 20)] == 0.25
    assert events[("dev/RR_10", 20)] == 0.75
    assert np.isclose(events[("learning_rate", 10)], 1e-5)


def test_lines_are_on_disk_before_the_log_closes(tmp_path: Path):
    log = MetricsLog(tmp_path, tensorboard=False)
    log.log(1, {"loss": 1.0})
    assert len(read_metrics(tmp_path)) == 1
    assert not (tmp_path / TENSORBOARD_FOLDER).exists()
    log.__exit__(None, None, None)


def test_a_reopened_log_goes_on_after_the_last_whole_line(tmp_path: Path):
    with MetricsLog(tmp_path, tensorboard=False) as log:
        log.log(1, {"loss": 1.0})
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 2, "lo')
    with MetricsLog(tmp_path, tensorboard=False) as log:
        log.log(2, {"loss": 2.0})
    assert [line["loss"] for line in read_metrics(tmp_path)] == [1.0, 2.0]


def test_values_that_json_cannot_hold_become_null(tmp_path: Path):
    with MetricsLog(tmp_path, tensorboard=False) as log:
        log.log(1, {"loss": float("nan")})
    assert read_metrics(tmp_path)[0]["loss"] is None


@pytest.mark.parametrize("tensorboard", [True, False])
def test_a_full_disk_stops_the_run_and_is_named(tmp_path: Path, tensorboard: bool):
    threads = threading.active_count()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, hard))
    try:
        with (
            pytest.raises(OSError, match="too large") as stopped,
            MetricsLog(tmp_path, tensorboard=tensorboard) as log,
        ):
            for step in range(100):
                log.log(step, {"loss": 1.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert stopped.value.filename in (
        str(tmp_path / METRICS_FILE),
        str(tmp_path / TENSORBOARD_FOLDER),
    )
    assert threading.active_count() == threads
