"""Metrics over steps, as JSON lines, as TensorBoard events and to whoever else wants them.

`metrics.jsonl` holds one object a line: `{"step": 10, "time_s": 4.1, "loss": 1.93, ...}` from
training and `{"step": 75, "time_s": 40.2, "dev/RR@10": 0.71, ...}` from the dev measure, where
`time_s` counts seconds of training since step 0, without those between an interruption and its
resumption.
"""

import json
import math
import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

from jaxrank.errors import InputError
from jaxrank.files import atomic_open, naming, parse_json_object

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"
# TensorBoard allows fewer letters in a tag: RR@10 is RR_10 there.
_TAG_REFUSES = re.compile(r"[^-/\w.]")


@runtime_checkable
class Sink(Protocol):
    """Somewhere that metrics go to."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the values of a step."""

    def close(self) -> None:
        """Take it that no more will come."""


class MetricsLog:
    """Appends metrics to a run folder; a context manager.

    Each line is written at once and flushed, so a killed run loses no line that it has logged. A
    line that was cut by a kill is removed when the log is opened again.

    Args:
        tensorboard: write TensorBoard's events too.
        more: other sinks; the log closes them.
        resume_from: the step that training goes on from. Lines of later steps are removed, since
            those steps are done again, and `time_s` goes on from the last line that stays.
    """

    def __init__(
        self,
        folder: Path,
        *,
        tensorboard: bool = True,
        more: Sequence[Sink] = (),
        resume_from: int | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / METRICS_FILE
        elapsed_s = _cut_lines(path, last_step=resume_from)
        self._start_s = time.monotonic() - elapsed_s
        self._lines = _JsonLines(path)
        self._others: list[Sink] = []
        if tensorboard:
            self._others.append(_TensorBoard(folder / TENSORBOARD_FOLDER, resume_from=resume_from))
        self._others += more

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write `values` as those of `step`; a value that is not finite becomes null in JSON."""
        time_s = round(time.monotonic() - self._start_s, 3)
        self._lines.log(step, {"time_s": time_s, **values})
        for sink in self._others:
            sink.log(step, values)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            with ExitStack() as stack:
                for sink in (*reversed(self._others), self._lines):
                    stack.callback(sink.close)
        except OSError:
            if error is None:  # else it says more of the same
                raise


class NoMetrics(MetricsLog):
    """The log of a process that writes none, since another one of its run does."""

    def __init__(self) -> None:
        pass

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Drop the values."""

    def __exit__(self, *error: object) -> None:
        pass


def read_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """The lines of a run folder's `metrics.jsonl`, in the order in which they were logged.

    A last line that is not whole, since the run is writing it or was killed, is left out.

    Raises:
        InputError: a file that is not there, or a line that is no JSON object.
    """
    path = Path(folder) / METRICS_FILE
    if not path.exists():
        raise InputError(f"{path}: no such file")
    return [values for _, values in _whole_lines(path)]


class _JsonLines:
    """metrics.jsonl, opened to append."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("a", encoding="utf-8")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        plain = {name: value if math.isfinite(value) else None for name, value in values.items()}
        with naming(self._path):
            self._file.write(json.dumps({"step": step, **plain}) + "\n")
            self._file.flush()

    def close(self) -> None:
        with naming(self._path):
            self._file.close()


class _TensorBoard:
    """A file of events in TensorBoard's folder."""

    def __init__(self, folder: Path, *, resume_from: int | None) -> None:
        # Imported late: it brings protobuf, which takes 0.2 s. Its SummaryWriter would write in a
        # thread, which dies of a full disk and then lets the training wait for ever.
        from tensorboardX.proto import event_pb2
        from tensorboardX.record_writer import RecordWriter

        folder.mkdir(exist_ok=True)
        # Files are read in the order of their names; two within a second differ in the last part.
        part = len(list(folder.iterdir()))
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{part}"
        self._folder = folder
        self._make_event: Any = event_pb2.Event  # type: ignore[attr-defined]  # made at run time
        self._writer = RecordWriter(str(folder / name))
        self._write(file_version="brain.Event:2")
        if resume_from is not None:
            # TensorBoard takes this as a restart and drops what earlier files say of these steps.
            session: Any = event_pb2.SessionLog  # type: ignore[attr-defined]
            self._write(step=resume_from + 1, session_log=session(status=session.START))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        scalars = [
            {"tag": _TAG_REFUSES.sub("_", name), "simple_value": value}
            for name, value in values.items()
        ]
        with naming(self._folder):
            self._write(step=step, summary={"value": scalars})
            self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _write(self, **fields: Any) -> None:
        event = self._make_event(wall_time=time.time(), **fields)
        self._writer.write(event.SerializeToString())


def _cut_lines(path: Path, *, last_step: int | None) -> float:
    """Remove a line that a kill has cut, and those after `last_step`; return the last `time_s`."""
    if not path.exists():
        return 0.0
    kept, time_s = [], 0.0
    for line, values in _whole_lines(path):
        if last_step is None or values.get("step", 0) <= last_step:
            kept.append(line)
            time_s = values.get("time_s", 0.0)
    if sum(map(len, kept)) < path.stat().st_size:
        with atomic_open(path, "wb") as file:
            file.writelines(kept)
    return float(time_s)


def _whole_lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Each line that has an end, and its values."""
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        if line.endswith(b"\n"):
            yield line, parse_json_object(line, where=f"{path}:{number}")
