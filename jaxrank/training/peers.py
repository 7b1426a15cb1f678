"""The processes of a run keep an eye on one another: when one is lost, none waits for it for ever.

A process that waits for the others inside a computation waits as long as the network lets it, and
JAX's own watch ends it with a stack trace that names nobody. So each process holds a connection to
process 0 and says now and then that it is alive. A connection that closes without a farewell, or
one that is silent, is a process lost; process 0 tells the others, and all end with one line.
"""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import NoReturn

SILENCE_S = 30.0
"""A process that says nothing for so long is lost; it may be stopped, or behind a dead network."""

EXIT_LOST_PROCESS = 75
"""EX_TEMPFAIL of sysexits.h: the same command, given again, may well succeed."""

_GREETING_S = 5.0
_ALIVE, _DONE, _LOST, _FAILED = "alive", "done", "lost", "failed"


class Peers:
    """The connections of this process, each read by a thread of its own.

    Args:
        index: number of this process.
        count: how many there are.
        connections: number of a process -> socket. Process 0 has all the others, these have 0.
        silence_s: see SILENCE_S.
        end: called with a line and an exit status when the run cannot go on.
    """

    def __init__(
        self,
        index: int,
        count: int,
        connections: dict[int, socket.socket],
        *,
        silence_s: float = SILENCE_S,
        end: Callable[[str, int], object] | None = None,
    ) -> None:
        self._index = index
        self._count = count
        self._connections = connections
        self._silence_s = silence_s
        self._end = _end_process if end is None else end
        self._sending = threading.Lock()
        self._is_over = threading.Event()
        for other, connection in connections.items():
            connection.settimeout(silence_s)
            _start(partial(self._listen, other, connection))
        _start(self._say_alive)

    def finish(self) -> None:
        """Say farewell: from now on this process may end, and the others may."""
        self._is_over.set()
        self._tell_all(_DONE)

    def fail(self, reason: str, status: int) -> None:
        """Tell the others that this process ends by an error, which ends them alike."""
        self._is_over.set()
        self._tell_all(f"{_FAILED} {self._index} {status} {' '.join(reason.split())}")

    def _say_alive(self) -> None:
        while not self._is_over.wait(self._silence_s / 6):
            self._tell_all(_ALIVE)

    def _tell_all(self, line: str, *, but: int | None = None) -> None:
        for other, connection in self._connections.items():
            if other == but:
                continue
            try:
                with self._sending:
                    connection.sendall(line.encode() + b"\n")
            except OSError:
                pass  # whoever reads this connection notices

    def _listen(self, other: int, connection: socket.socket) -> None:
        """Read what another process says until it is done or lost."""
        try:
            for line in connection.makefile(encoding="utf-8"):
                word, _, rest = line.rstrip("\n").partition(" ")
                if word == _DONE:
                    return
                if word == _FAILED:
                    number, status, reason = rest.split(" ", maxsplit=2)
                    why = f"process {number} failed: {reason}"
                    self._over(why, int(status), told=line, but=other)
                elif word == _LOST:
                    self._lose(int(rest), "", but=other)
        except TimeoutError:
            how = f"it said nothing for {self._silence_s:g} s"
        except OSError as error:
            how = f"{error.strerror or error}"
        else:
            how = "its connection closed"
        self._lose(other, f": {how}", but=other)

    def _lose(self, other: int, how: str, *, but: int) -> None:
        why = (
            f"process {other} of the run was lost{how}; the same command goes on from the last "
            "checkpoint"
        )
        self._over(why, EXIT_LOST_PROCESS, told=f"{_LOST} {other}", but=but)

    def _over(self, why: str, status: int, *, told: str, but: int) -> None:
        """End this process and, as process 0, the others, unless it has ended anyway."""
        if self._is_over.is_set():
            return
        self._is_over.set()
        self._tell_all(told.rstrip("\n"), but=but)
        self._end(f"process {self._index} of {self._count} ends: {why}", status)


def listen(host: str = "") -> socket.socket:
    """A socket for `accept`, on a port that the system chooses."""
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() and not host else socket.AF_INET
    dual = family == socket.AF_INET6
    return socket.create_server((host, 0), family=family, dualstack_ipv6=dual, backlog=1024)


def accept(
    server: socket.socket, token: str, *, count: int, timeout_s: float
) -> dict[int, socket.socket]:
    """The connections of the other `count - 1` processes; `server` is closed.

    Raises:
        TimeoutError: not all of them came.
    """
    connections: dict[int, socket.socket] = {}
    deadline_s = time.monotonic() + timeout_s
    with server:
        while len(connections) < count - 1:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            server.settimeout(left_s)
            connection, _ = server.accept()
            connection.settimeout(_GREETING_S)
            try:
                came, _, number = _read_line(connection).partition(" ")
            except OSError:  # silent or reset: a port scan, a health check
                came = ""
            if came != token:
                connection.close()
                continue
            connections[int(number)] = connection
    return connections


def connect(host: str, port: int, token: str, *, index: int, timeout_s: float) -> socket.socket:
    """A connection to process 0.

    Raises:
        OSError: it cannot be reached.
    """
    connection = socket.create_connection((host, port), timeout=timeout_s)
    connection.sendall(f"{token} {index}\n".encode())
    return connection


def _read_line(connection: socket.socket) -> str:
    """One line and no byte more: what follows belongs to whoever listens later."""
    line = bytearray()
    while not line.endswith(b"\n") and len(line) < 100:
        byte = connection.recv(1)
        if not byte:
            break
        line += byte
    return line.decode(errors="replace").rstrip("\n")


def _start(function: Callable[[], None]) -> None:
    threading.Thread(target=function, daemon=True, name="peers").start()


def _end_process(line: str, status: int) -> NoReturn:
    # At once, whatever the main thread waits for; what it writes is complete or not there.
    os.write(sys.stderr.fileno(), f"error: {line}\n".encode())
    os._exit(status)
