"""How every command ends: its exit status, errors as one line, Ctrl-C with all files complete."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from jaxrank.compilation_cache import keep_compilations
from jaxrank.errors import InputError, TrainingStoppedError

EXIT_BAD_INPUT = 2
EXIT_STOPPED = 75  # "try again later" in sysexits.h: the same command goes on
EXIT_INTERRUPTED = 130

_RETRY_INTERRUPT_S = 0.05


def run(main: Callable[[], None]) -> NoReturn:
    """Run a command and exit.

    The status is 0; 2 for bad input or a failed write, with one line; 75 for a training that was
    asked to stop and that the same command goes on with; 130 for Ctrl-C.
    """
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    keep_compilations()
    try:
        with _interrupts_are_kept():
            main()
            _flush_output()
    except InputError as error:
        sys.exit(_complain(f"error: {error}"))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.exit(_complain(f"error: {where}{error.strerror or error}"))
    except TrainingStoppedError as stop:
        _complain(str(stop))
        _exit_at_once(EXIT_STOPPED)
    except KeyboardInterrupt:
        _complain(
            "interrupted: no unfinished file passes for whole; the same command can be run again"
        )
        _exit_at_once(EXIT_INTERRUPTED)
    sys.exit(0)


def _complain(line: str) -> int:
    print(line, file=sys.stderr, flush=True)
    return EXIT_BAD_INPUT


def _exit_at_once(status: int) -> None:
    """End without tearing Python down: under threads that compute or compile, that can crash."""
    with suppress(OSError):
        sys.stdout.flush()
    os._exit(status)


def _flush_output() -> None:
    """Write out what was printed, so that a full disk or a closed pipe ends in one line too."""
    try:
        sys.stdout.flush()
    except OSError as error:
        # Python would try the rest again at its end, and complain in its own way.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OSError(error.errno, error.strerror, "standard output") from None


@contextmanager
def _interrupts_are_kept() -> Iterator[None]:
    """Send Ctrl-C, or the signal that stops a training, again where Python drops it.

    An exception in a callback of the garbage collector (jax has one) or in a destructor is only
    reported, so a signal that arrives just then would be shown and forgotten.
    """

    def report(dropped: "sys.UnraisableHookArgs") -> None:
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            number = signal.SIGINT
        elif issubclass(dropped.exc_type, TrainingStoppedError):
            number = signal.SIGTERM
        else:
            earlier(dropped)
            return
        # Later, when the callback is over; a signal also wakes a thread that waits for a lock.
        again = threading.Timer(_RETRY_INTERRUPT_S, _send_again, (number,))
        again.daemon = True
        again.start()

    earlier, sys.unraisablehook = sys.unraisablehook, report
    try:
        yield
    finally:
        sys.unraisablehook = earlier


def _send_again(number: int) -> None:
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    # A training that has stopped meanwhile has put the default back, which would kill this process.
    if callable(signal.getsignal(number)):
        signal.pthread_kill(main_thread, number)
