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
from jaxrank.errors import InputError

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130

_RETRY_INTERRUPT_S = 0.05


def run(main: Callable[[], None]) -> NoReturn:
    """Run a command and exit: 0, 2 for bad input or a failed write (one line), 130 for Ctrl-C."""
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
    except KeyboardInterrupt:
        _complain("interrupted: files written so far are complete")
        with suppress(OSError):
            sys.stdout.flush()
        # At once: tearing Python down under threads that still compute or compile can crash.
        os._exit(EXIT_INTERRUPTED)
    sys.exit(0)


def _complain(line: str) -> int:
    print(line, file=sys.stderr, flush=True)
    return EXIT_BAD_INPUT


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
    """Send Ctrl-C again where Python drops it.

    An exception in a callback of the garbage collector (jax has one) or in a destructor is only
    reported, so a Ctrl-C that arrives just then would be shown and forgotten.
    """

    def report(dropped: "sys.UnraisableHookArgs") -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            earlier(dropped)
            return
        main_thread = threading.main_thread().ident
        assert main_thread is not None
        # Later, when the callback is over; a signal also wakes a thread that waits for a lock.
        again = threading.Timer(
            _RETRY_INTERRUPT_S, signal.pthread_kill, (main_thread, signal.SIGINT)
        )
        again.daemon = True
        again.start()

    earlier, sys.unraisablehook = sys.unraisablehook, report
    try:
        yield
    finally:
        sys.unraisablehook = earlier
