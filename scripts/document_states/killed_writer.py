"""Encodes documents in a process of its own, kills it at random moments, and compares stores."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_LOOK_EVERY_S = 0.005
_TIMEOUT_S = 3600


@dataclass(frozen=True)
class Encoding:
    """A call of the command, but for the folder that it writes."""

    model: Path
    collection: Path
    dtype: str
    batch_size: int
    shard_bytes: int

    def start(self, store: Path) -> "subprocess.Popen[str]":
        """Begin, or go on."""
        command = [sys.executable, "-m", "scripts.document_states.small_shards"]
        command += [str(self.shard_bytes), "--model", str(self.model), "--output", str(store)]
        command += ["--collection", str(self.collection), "--dtype", self.dtype]
        command += ["--batch_size", str(self.batch_size)]
        return subprocess.Popen(
            command, cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def finish(self, store: Path) -> float:
        """Seconds to the end; RuntimeError with what was said if it fails."""
        begin_s = time.perf_counter()
        process = self.start(store)
        said, _ = process.communicate(timeout=_TIMEOUT_S)
        if process.returncode:
            raise RuntimeError(f"encoding ended with {process.returncode}:\n{said}")
        return time.perf_counter() - begin_s


@dataclass
class Kills:
    """What the kills met."""

    killed_after_s: list[float] = field(default_factory=list)
    """Of each kill, from the start of its process."""
    before_first: int = 0
    """Kills of processes that had added no file yet."""
    left_a_part: int = 0
    """Kills that left a file half written."""


def kill_often(encoding: Encoding, store: Path, whole: Path, kills: int, seed: int) -> Kills:
    """Kill the encoding again and again, then let it finish.

    One kill of four comes at any moment of the start, the others up to the time of two files after
    a process has added one, so that each has got on and the last comes before the end.

    Args:
        whole: the store of an undisturbed encoding, whose files say how long each takes.
    """
    moments = random.Random(seed)
    times_s = sorted(path.stat().st_mtime for path in whole.rglob("*") if path.is_file())
    each_s = (times_s[-1] - times_s[0]) / len(times_s)
    found = Kills()
    for number in range(kills):
        before = names(store)
        begin_s = time.perf_counter()
        process = encoding.start(store)
        if number % 4 != 3:
            _wait_for_a_file(process, store, before)
            time.sleep(moments.uniform(0, 2 * each_s))
        else:
            time.sleep(moments.uniform(0, found.killed_after_s[-1]))
        if process.poll() is not None:
            process.communicate()
            break
        process.send_signal(signal.SIGKILL)
        process.communicate()
        found.killed_after_s.append(round(time.perf_counter() - begin_s, 3))
        found.before_first += not names(store) - before
        found.left_a_part += any(path.name.endswith(".part") for path in store.glob(".*"))
    encoding.finish(store)
    return found


def differing_files(whole: Path, other: Path) -> list[str]:
    """Files that only one of two folders has, or that do not hold the same bytes."""
    files = {path.relative_to(folder) for folder in (whole, other) for path in _files(folder)}
    return [
        str(name)
        for name in sorted(files)
        if not ((whole / name).is_file() and (other / name).is_file())
        or (whole / name).read_bytes() != (other / name).read_bytes()
    ]


def names(store: Path) -> set[str]:
    """The complete files of a store."""
    return {path.name for path in _files(store) if not path.name.startswith(".")}


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _wait_for_a_file(process: "subprocess.Popen[str]", store: Path, before: set[str]) -> None:
    while process.poll() is None and not names(store) - before:
        time.sleep(_LOOK_EVERY_S)
