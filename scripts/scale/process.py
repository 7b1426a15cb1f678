"""Runs a command and says what it took: time, and memory in two meanings of the word. Linux only.

Peak RSS is the kernel's `ru_maxrss`. It counts pages of memory-mapped files, which the kernel takes
back when anyone needs them, so anonymous memory, which nothing can take back, is sampled beside it.
A command starts as a copy of this process, and `ru_maxrss` counts that: where it says no more than
this process has, the peak is that of the samples.
"""

import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_INTERVAL_S = 0.01


@dataclass(frozen=True)
class Measured:
    """What a finished command took.

    Attributes:
        seconds: from start to end.
        cpu_seconds: of all its threads; on a busy machine, less misleading.
        peak_rss: bytes in memory at most, pages of mapped files included.
        peak_anonymous: bytes of its own at most.
        output: what it printed.
    """

    seconds: float
    cpu_seconds: float
    peak_rss: int
    peak_anonymous: int
    output: str


def measure(command: Sequence[str], *, folder: Path) -> Measured:
    """Run a command in `folder` to its end.

    Raises:
        RuntimeError: it failed; the message ends with what it printed.
    """
    with tempfile.TemporaryFile() as printed:
        begin = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.STDOUT
        )
        sampled = {"VmHWM": 0, "RssAnon": 0}
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            for name, value in _memory(process.pid).items():
                sampled[name] = max(sampled[name], value)
            time.sleep(_INTERVAL_S)
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)  # no other wait would find it
        printed.seek(0)
        output = printed.read().decode(errors="replace")
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: status {process.returncode}:\n{output[-4000:]}")
    return Measured(
        seconds=seconds,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_rss=usage.ru_maxrss * 1024 if usage.ru_maxrss > own else sampled["VmHWM"],
        peak_anonymous=sampled["RssAnon"],
        output=output,
    )


def drop_from_page_cache(folder: Path) -> None:
    """Make the next reads of a folder's files come from the disk; nobody may have them mapped."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)  # pages that are not on the disk yet would stay
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(handle)


def bytes_from_device() -> int | None:
    """What this process made the kernel read from storage so far; None where it does not say.

    Pages of mapped files count, those that were in memory already do not.
    """
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return None
    found = dict(line.split(": ") for line in lines)
    return int(found["read_bytes"]) if "read_bytes" in found else None


def _memory(pid: int) -> dict[str, int]:
    """Bytes of a process: in memory at most so far, anonymous now; nothing once it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    rows = dict(line.split(":", 1) for line in status.splitlines())
    names = [name for name in ("VmHWM", "RssAnon") if name in rows]
    return {name: int(rows[name].split()[0]) * 1024 for name in names}
