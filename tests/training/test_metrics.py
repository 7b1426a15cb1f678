"""The metrics log: JSON lines that survive a kill, and TensorBoard events with the same values."""

import json
import resource
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from jaxrank.training.metrics import METRICS_FILE, TENSORBOARD_FOLDER, MetricsLog, read_metrics


def read_events(folder: Path) -> dict[tuple[str, int], float]:
    """Scalars of TensorBoard's record files: 8 bytes length, 4 check, the event, 4 check.

    Files are read in the order of their names, and the start of a session drops what came before of
    its step and later ones, as TensorBoard does.
    """
    scalars = {}
    for path in sorted(folder.glob("events.*")):
        content, start = path.read_bytes(), 0
        while start < len(content):
            length = int.from_bytes(content[start : start + 8], "little")
            event = event_pb2.Event.FromString(content[start + 12 : start + 12 + length])
            if event.session_log.status == event_pb2.SessionLog.START:
                scalars = {key: value for key, value in scalars.items() if key[1] < event.step}
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


@pytest.mark.parametrize("has_cut_line", [False, True])
def test_a_resumed_log_forgets_the_steps_that_are_done_again(tmp_path: Path, has_cut_line: bool):
    with MetricsLog(tmp_path) as log:
        for step in (0, 10, 20, 30):
            log.log(step, {"loss": float(step)})
        log.log(20, {"dev/RR@10": 0.5})
    path = tmp_path / METRICS_FILE
    # Lines as of a training that took an hour.
    slow = [json.dumps(line | {"time_s": 360.0 * line["step"]}) for line in read_metrics(tmp_path)]
    cut_line = '{"step": 20, "lo' if has_cut_line else ""
    path.write_text("".join(line + "\n" for line in slow) + cut_line)
    with MetricsLog(tmp_path, resume_from=20) as log:
        log.log(30, {"loss": 31.0})
    lines = read_metrics(tmp_path)
    assert [(line["step"], line.get("loss")) for line in lines] == [
        (0, 0.0), (10, 10.0), (20, 20.0), (20, None), (30, 31.0)
    ]  # fmt: skip
    assert 7200 <= lines[-1]["time_s"] < 7260
    events = read_events(tmp_path / TENSORBOARD_FOLDER)
    assert events == {
        ("loss", 0): 0.0, ("loss", 10): 10.0, ("loss", 20): 20.0, ("dev/RR_10", 20): 0.5,
        ("loss", 30): 31.0,
    }  # fmt: skip
    assert len(list((tmp_path / TENSORBOARD_FOLDER).iterdir())) == 2


def test_a_line_that_is_being_written_is_not_read(tmp_path: Path):
    (tmp_path / METRICS_FILE).write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 2.0}]


def test_other_sinks_get_the_same_and_are_closed_when_one_of_them_fails(tmp_path: Path):
    class Recorder:
        def __init__(self, error: Exception | None = None) -> None:
            self.lines: list[tuple[int, dict[str, float]]] = []
            self.closed = 0
            self.error = error

        def log(self, step: int, values: Mapping[str, float]) -> None:
            self.lines.append((step, dict(values)))

        def close(self) -> None:
            self.closed += 1
            if self.error is not None:
                raise self.error

    sinks = [Recorder(), Recorder(OSError(28, "No space left on device"))]
    with (
        pytest.raises(OSError, match="No space"),
        MetricsLog(tmp_path, tensorboard=False, more=sinks) as log,
    ):
        log.log(3, {"loss": 1.0})
    for sink in sinks:
        assert sink.lines == [(3, {"loss": 1.0})]
        assert sink.closed == 1


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
