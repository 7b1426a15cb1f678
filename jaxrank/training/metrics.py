"""Metrics over steps, as JSON lines and as TensorBoard events.

`metrics.jsonl` holds one object a line: `{"step": 10, "time_s": 4.1, "loss": 1.93, ...}` from
training and `{"step": 75, "time_s": 40.2, "dev/RR@10": 0.71, ...}` from the dev measure, where
`time_s` counts seconds since the log was opened.
"""

import json
import math
import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from jaxrank.files import naming, read_jsonl

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"
# TensorBoard allows fewer letters in a tag: RR@10 is RR_10 there.
_TAG_REFUSES = re.compile(r"[^-/\w.]")


class MetricsLog:
    """Appends metrics to a run folder; a context manager.

    Each line is written at once and flushed, so a killed run loses no line that it has logged. A
    line that was cut by a kill is removed when the log is opened again.
    """

    def __init__(self, folder: Path, *, tensorboard: bool = True) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / METRICS_FILE
        _cut_unfinished_line(self._path)
        self._file = self._path.open("a", encoding="utf-8")
        self._events: Any = None
        if tensorboard:
            # Imported late: it brings protobuf, which takes 0.2 s. Its SummaryWriter would write
            # in a thread, which dies of a full disk and then lets the training wait for ever.
            from tensorboardX.record_writer import RecordWriter

            (folder / TENSORBOARD_FOLDER).mkdir(exist_ok=True)
            name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}"
            self._events = RecordWriter(str(folder / TENSORBOARD_FOLDER / name))
            self._events.write(_event(file_version="brain.Event:2"))
        self._start_s = time.monotonic()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write `values` as those of `step`; a value that is not finite becomes null in JSON."""
        time_s = round(time.monotonic() - self._start_s, 3)
        plain = {name: _as_json(value) for name, value in values.items()}
        with naming(self._path):
            self._file.write(json.dumps({"step": step, "time_s": time_s, **plain}) + "\n")
            self._file.flush()
        if self._events is not None:
            with naming(self._path.parent / TENSORBOARD_FOLDER):
                self._events.write(_event(values, step=step))
                self._events.flush()

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._close()
        except OSError:
            if error is None:  # else it says more of the same
                raise

    def _close(self) -> None:
        try:
            with naming(self._path):
                self._file.close()
        finally:
            if self._events is not None:
                self._events.close()


def read_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """The lines of a run folder's `metrics.jsonl`, in the order in which they were logged."""
    return [line for _, line in read_jsonl(Path(folder) / METRICS_FILE)]


def _as_json(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _event(values: Mapping[str, float] | None = None, **fields: Any) -> bytes:
    """The values as one event of TensorBoard's."""
    from tensorboardX.proto import event_pb2

    # protobuf makes the class at run time.
    event = event_pb2.Event(  # type: ignore[attr-defined]
        wall_time=time.time(), **fields
    )
    for name, value in (values or {}).items():
        event.summary.value.add(tag=_TAG_REFUSES.sub("_", name), simple_value=value)
    return bytes(event.SerializeToString())


def _cut_unfinished_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
