"""Checkpoints: all that a training needs to go on after an interruption as if there had been none.

A run folder's `checkpoints/step-000120` holds

    state/          orbax's files: trained parameters, optimizer state, step, random key, loss scale
    progress.json   what else the training knows: position in the data, results, open metrics
    manifest.json   SHA-256 of every file, and shape and dtype of every array

It is written under the name `.step-000120.part` and renamed once the manifest is complete, so a
kill leaves whole checkpoints or none. orbax finds no damage by itself and casts dtypes in silence;
so nothing is restored whose files or arrays are not those of the manifest.
"""

import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from errno import EIO
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxrank.errors import InputError
from jaxrank.files import read_json
from jaxrank.training.manifest import verify_manifest, write_manifest
from jaxrank.training.state_arrays import (
    Description,
    compare_arrays,
    describe_arrays,
    state_arrays,
    with_arrays,
)
from jaxrank.training.step import TrainState

CHECKPOINTS_FOLDER = "checkpoints"
STATE_FOLDER = "state"
PROGRESS_FILE = "progress.json"

_NAME = re.compile(r"step-(\d{6,})")
_NO_CHECKPOINT, _NONE_USABLE = 0, -1


class Restored(NamedTuple):
    """What a checkpoint gives back."""

    state: TrainState
    progress: dict[str, Any]
    folder: Path


class Checkpoints:
    """The checkpoints of a run; a context manager that waits for the last one to be complete.

    Args:
        folder: where they are, seen by all processes of the run.
        keep: how many of the newest stay.
        keep_steps: steps whose checkpoints stay besides.
        say: called with a line for every checkpoint that is refused.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int,
        keep_steps: Collection[int] = (),
        say: Callable[[str], None],
    ) -> None:
        # Imported late: it takes 0.5 s, which commands that only read recipes need not pay.
        from orbax.checkpoint import StandardCheckpointer

        self._folder = folder.absolute()
        self._keep = keep
        self._keep_steps = frozenset(keep_steps)
        self._say = say
        self._is_first_process = jax.process_index() == 0
        self._refused: set[int] = set()
        self._saved_step = 0
        self._checkpointer = StandardCheckpointer()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._quiet = ExitStack()

    def save(self, step: int, state: TrainState, progress: Mapping[str, Any]) -> None:
        """Begin to write a checkpoint; the state is copied before this returns.

        Args:
            progress: what JSON can hold.

        Raises:
            OSError: the one before could not be written; named for its folder.
        """
        if step == self._saved_step:
            return
        self.wait()
        self._saved_step = step
        part = self._folder / f".{_name(step)}.part"
        arrays = state_arrays(state)
        about = {"step": step, "arrays": describe_arrays(arrays)}
        text = json.dumps(progress, indent=1)
        with self._naming(step):
            if self._is_first_process:
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir(parents=True)
            self._checkpointer.save(part / STATE_FOLDER, arrays)
        self._pending = self._thread.submit(self._complete, step, part, about, text)

    def check(self) -> None:
        """Raise the OSError of a checkpoint that could not be written, without waiting for one."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Wait until what was saved is complete, and raise the OSError if it could not be."""
        if self._pending is not None:
            try:
                self._pending.result()
            finally:
                self._pending = None

    def restore(self, state: TrainState) -> Restored | None:
        """The newest checkpoint that can be used; None where there is none at all.

        Args:
            state: one of the same run at step 0; it says shapes, dtypes and shardings, which may be
                those of other devices than the checkpoint's. Its arrays are given up, but for
                those that are not trained.

        Raises:
            InputError: there are checkpoints, and none can be used; says why of each.
        """
        target = state_arrays(state)
        steps = find_checkpoints(self._folder)
        reasons: list[str] = []
        while (step := self._choose(steps, describe_arrays(target), reasons)) > 0:
            folder = self._folder / _name(step)
            progress = read_json(folder / PROGRESS_FILE)
            abstract = {
                name: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=array.sharding)
                for name, array in target.items()
            }
            # Two states at once may be more than the device can hold.
            for leaf in jax.tree.leaves((state.parameters, state.optimizer_state)):
                leaf.delete()
            try:
                arrays = self._checkpointer.restore(folder / STATE_FOLDER, abstract)
            except (ValueError, KeyError, TypeError, OSError) as error:
                self._refuse(step, f"orbax cannot read it ({error})", reasons)
                continue
            self._saved_step = step
            return Restored(with_arrays(state, arrays), progress, folder)
        if step == _NO_CHECKPOINT:
            return None
        raise InputError(
            f"{self._folder}: none of the checkpoints can be used ({'; '.join(reasons)}); "
            "--training.overwrite true starts again from step 0"
        )

    def __enter__(self) -> "Checkpoints":
        self._quiet.enter_context(_orbax_is_quiet())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if not isinstance(error, KeyboardInterrupt):
                self.wait()
        except OSError:
            if error is None or not isinstance(error, Exception):
                raise
        finally:
            self._thread.shutdown(wait=False)
            self._quiet.close()

    def _choose(self, steps: list[int], arrays: Description, reasons: list[str]) -> int:
        """The newest step whose files and arrays are right, the same in every process."""
        chosen = _NONE_USABLE if steps else _NO_CHECKPOINT
        if self._is_first_process:
            for step in steps:
                if step in self._refused:
                    continue
                try:
                    about = verify_manifest(self._folder / _name(step))
                    if about["step"] != step:
                        raise InputError(f"it is of step {about['step']}")
                    compare_arrays(about["arrays"], arrays)
                except (InputError, OSError) as error:
                    self._refuse(step, str(error), reasons)
                    continue
                chosen = step
                break
        if jax.process_count() > 1:
            chosen = int(multihost_utils.broadcast_one_to_all(np.int32(chosen)))
        return chosen

    def _refuse(self, step: int, reason: str, reasons: list[str]) -> None:
        self._refused.add(step)
        reasons.append(f"{_name(step)}: {reason}")
        self._say(f"{self._folder / _name(step)}: not used, since {reason}")

    def _complete(self, step: int, part: Path, about: Mapping[str, Any], progress: str) -> None:
        """Wait for orbax, write the rest and give the folder its name; runs in a thread."""
        with self._naming(step):
            # Returns once the files of all processes are there.
            self._checkpointer.wait_until_finished()
            if not self._is_first_process:
                return
            with (part / PROGRESS_FILE).open("w", encoding="utf-8") as file:
                file.write(progress + "\n")
                file.flush()
                os.fsync(file.fileno())
            write_manifest(part, about)
            self._remove(step)
            part.rename(self._folder / _name(step))
            self._refused.discard(step)
            self._prune(step)

    def _prune(self, newest: int) -> None:
        """Remove what is neither new nor to be kept; a refused one makes no other go."""
        usable = [step for step in find_checkpoints(self._folder) if step not in self._refused]
        usable = [step for step in usable if step <= newest]
        kept = {*usable[: self._keep], *self._keep_steps.intersection(usable)}
        for step in find_checkpoints(self._folder):
            if step not in kept:
                self._remove(step)
        self._refused.clear()

    def _remove(self, step: int) -> None:
        """Remove a checkpoint so that a kill leaves no part of it under its name."""
        folder = self._folder / _name(step)
        if folder.exists():
            old = folder.with_name(f".{folder.name}.old")
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
            shutil.rmtree(old)

    @contextmanager
    def _naming(self, step: int) -> Iterator[None]:
        """Turn what a full disk raises, here or in orbax, into an OSError that names the folder."""
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            if self._is_first_process:
                shutil.rmtree(self._folder / f".{_name(step)}.part", ignore_errors=True)
            raise _as_os_error(error, self._folder / _name(step)) from error


def find_checkpoints(folder: Path) -> list[int]:
    """Steps of the checkpoints in a folder, the newest first; those not finished do not count."""
    found = [_NAME.fullmatch(path.name) for path in folder.glob("step-*")]
    return sorted((int(match[1]) for match in found if match), reverse=True)


def _name(step: int) -> str:
    return f"step-{step:06d}"


def _as_os_error(error: Exception, folder: Path) -> OSError:
    """What went wrong with a folder; orbax puts the system's error number into its text."""
    if isinstance(error, OSError) and error.errno is not None:
        number = error.errno
    elif found := re.search(r"os_error_code='(\d+)'", str(error)):
        number = int(found[1])
    else:
        return OSError(EIO, str(error).partition("\n")[0], str(folder))
    return OSError(number, os.strerror(number), str(folder))


@contextmanager
def _orbax_is_quiet() -> Iterator[None]:
    """Do not show twice what orbax raises: it logs it too, and so do its writes that end later.

    When one write fails, orbax closes its event loop; the others then find nobody to report to.
    """

    def report(unraisable: "sys.UnraisableHookArgs") -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            earlier(unraisable)

    def is_not_of_orbax(record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname

    earlier, sys.unraisablehook = sys.unraisablehook, report
    logging.getLogger("absl").addFilter(is_not_of_orbax)
    try:
        yield
    finally:
        logging.getLogger("absl").removeFilter(is_not_of_orbax)
        sys.unraisablehook = earlier
