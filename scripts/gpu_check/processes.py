"""Runs a command that writes lines of JSON to a file, and ends it if it hangs or is late.

A kernel that waits for a barrier which nobody reaches runs for ever, and a compiler that aborts
takes its process with it. So nothing that uses the GPU runs in the process that watches: what was
written before counts, and the next check has a device to itself.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TO_LEAVE_S = 15.0
"""That a process may take to leave once all is written, or once it is killed."""
LINES_KEPT = 12
NO_TIME = "no time was left"
_FATAL = ("Check failed", "Fatal", "fatal", "Error", "error")


@dataclass
class Ended:
    """What came of a command."""

    values: list[dict[str, Any]] = field(default_factory=list)
    """What it wrote, but for the last line."""
    obstacle: str = ""
    """Why it did not come to its end; nothing if it did. More lines than one."""
    is_late: bool = False
    """It was ended because there was no time left."""


def run_apart(
    command: Sequence[str],
    file: Path,
    *,
    end: Mapping[str, Any],
    silence_s: float,
    deadline_s: float = float("inf"),
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """Run it until the last line is there, or it dies, is silent or late; it is gone afterwards.

    Args:
        file: where it writes.
        end: its last line.
        silence_s: the most that may lie between two lines.
        deadline_s: of `time.monotonic()`.
    """
    said = file.with_suffix(".log")
    with said.open("wb") as errors:
        # A group of its own, so that what it has started can be ended with it. It stays in the
        # session: whoever ends this one ends all of it.
        process = subprocess.Popen(
            command, stderr=errors, env={**os.environ, **(environment or {})}, process_group=0
        )
    ended, is_done = Ended(), False
    try:
        place, heard_s = 0, time.monotonic()
        while True:
            is_dead = process.poll() is not None  # before reading, so that nothing is missed
            lines, place = _new_lines(file, place)
            if lines:
                heard_s = time.monotonic()
            for line in lines:
                if line == end:
                    is_done = True
                    return ended
                ended.values.append(line)
            now_s = time.monotonic()
            if is_dead:
                ended.obstacle = f"{_death(process.returncode)}: {_reason(said)}"
                return ended
            if now_s > deadline_s:
                ended.is_late, ended.obstacle = True, NO_TIME
                return ended
            if now_s - heard_s > silence_s:
                ended.obstacle = f"ended, silent for {silence_s:.0f} s: {_reason(said)}"
                return ended
            time.sleep(0.05)
    finally:
        _leave(process, is_done=is_done)


def _new_lines(file: Path, place: int) -> tuple[list[dict[str, Any]], int]:
    """Whole lines from a place on, and where the next begins."""
    if not file.exists():
        return [], place
    with file.open("rb") as opened:
        opened.seek(place)
        whole, newline, _ = opened.read().rpartition(b"\n")
    values = [json.loads(line) for line in whole.splitlines()]
    return values, place + len(whole) + len(newline)


def _leave(process: "subprocess.Popen[bytes]", *, is_done: bool) -> None:
    """Wait for a process that is done, end any other, and all that it has started."""
    try:
        if is_done:
            process.wait(TO_LEAVE_S)
    except subprocess.TimeoutExpired:
        pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    try:
        process.wait(TO_LEAVE_S)
    except subprocess.TimeoutExpired:
        print(f"process {process.pid} could not be ended; the GPU may hang", flush=True)


def _death(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    return f"died of {signal.Signals(-status).name}"


def _reason(said: Path) -> str:
    """The line that most likely says why, then the last lines."""
    lines = said.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    telling = [line for line in lines if any(word in line for word in _FATAL)]
    first = (telling or lines or ["it said nothing"])[-1]
    return "\n".join([first.strip(), *lines[-LINES_KEPT:]])
