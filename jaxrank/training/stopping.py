"""Stopping at a step boundary: SIGTERM and the first Ctrl-C ask for it, the second Ctrl-C insists.

A machine that is to be taken away sends SIGTERM and gives some seconds. Only the training loop
knows when all that it has done can be saved, so the handlers set a flag and the loop looks at it.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from jaxrank.errors import TrainingStoppedError

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_AT_ONCE = "stopped at a milestone, whose step is saved; the same command goes on from there"


class Stopping:
    """Whether training is to stop; a context manager that holds the handlers meanwhile.

    Outside the main thread, where Python allows no handlers, it leaves signals as they are.

    Args:
        say: called with one line when a stop is asked for.
        agree: makes one answer of those of several processes: True where any of them gives True.
            All processes call it at the same steps. None: this process decides alone.
        agree_every: steps between two such calls, each of which waits for all processes.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        agree: Callable[[bool], bool] | None = None,
        agree_every: int = 10,
    ) -> None:
        self._say = say
        self._agree = agree
        self._agree_every = agree_every
        self._earlier: dict[signal.Signals, Any] = {}
        self._is_asked = False
        self._may_raise = False

    def is_due(self, step: int) -> bool:
        """Whether to save and stop after `step`, the same in every process."""
        if self._agree is None:
            return self._is_asked
        return step % self._agree_every == 0 and self._agree(self._is_asked)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """While work that can be done again is going on, such as a dev measure, stop inside it.

        Several processes do such work together and stop after it.

        Raises:
            TrainingStoppedError: when a stop is asked for, or was before.
        """
        if self._agree is not None:
            yield
            return
        self._may_raise = True
        try:
            if self._is_asked:
                raise TrainingStoppedError(_AT_ONCE)
            yield
        finally:
            self._may_raise = False

    def __enter__(self) -> "Stopping":
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._earlier[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._earlier.items():
            # None stands for a handler that was not set from Python and cannot be set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._earlier.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._is_asked:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            if self._may_raise:
                # Python drops what is raised in a destructor, and then `command_line` sends again.
                raise TrainingStoppedError(_AT_ONCE)
            return
        self._is_asked = True
        name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
        line = f"{name}: saving a checkpoint, then stopping; Ctrl-C stops at once"
        # From a thread, since a handler may have interrupted this very stream's writing.
        threading.Thread(target=self._say, args=(line,), daemon=True).start()
        if self._may_raise:
            raise TrainingStoppedError(_AT_ONCE)
