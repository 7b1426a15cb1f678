"""What the processes of a run learn of one another, over real sockets in one process."""

import queue
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from jaxrank.training.peers import EXIT_LOST_PROCESS, Peers, accept, connect, listen

SILENCE_S, SOON_S = 0.6, 5.0
Ends = queue.Queue[tuple[int, str, int]]


class Run:
    """Three processes, the ends of which are noted instead of carried out."""

    def __init__(self) -> None:
        self.ends: Ends = queue.Queue()
        self.sockets: list[socket.socket] = []
        hub: dict[int, socket.socket] = {}
        self.peers: list[Peers] = []
        for index in (1, 2):
            hub[index], mine = socket.socketpair()
            self.sockets.append(mine)
        self._open = [*hub.values(), *self.sockets]
        self.peers.append(self._peers(0, hub))
        for index in (1, 2):
            self.peers.append(self._peers(index, {0: self.sockets[index - 1]}))

    def _peers(self, index: int, connections: dict[int, socket.socket]) -> Peers:
        def note(line: str, status: int) -> None:
            self.ends.put((index, line, status))

        return Peers(index, 3, connections, silence_s=SILENCE_S, end=note)

    def close(self) -> None:
        for peers in self.peers:
            peers.finish()
        for connection in self._open:
            connection.shutdown(socket.SHUT_RDWR)
        for thread in threading.enumerate():
            if thread.name == "peers":
                thread.join(SOON_S)
        for connection in self._open:
            connection.close()

    def next_ends(self, count: int) -> dict[int, tuple[str, int]]:
        found = [self.ends.get(timeout=SOON_S) for _ in range(count)]
        return {index: (line, status) for index, line, status in found}


@pytest.fixture
def run() -> Iterator[Run]:
    made = Run()
    yield made
    made.close()


def test_a_closed_connection_ends_all_others_and_names_the_lost_process(run: Run):
    run.sockets[1].shutdown(socket.SHUT_RDWR)
    ends = run.next_ends(3)  # the lost one's own side sees its connection closed too
    line, status = ends[1]
    assert line.startswith("process 1 of 3 ends: process 2 of the run was lost")
    assert "the same command goes on from the last checkpoint" in line
    assert "process 2 of the run was lost: its connection closed" in ends[0][0]
    assert (status, ends[0][1]) == (EXIT_LOST_PROCESS, EXIT_LOST_PROCESS)


def test_a_process_that_says_nothing_is_lost(run: Run):
    run.peers[2]._is_over.set()  # it says nothing any more, with its connection open
    ends = run.next_ends(2)
    assert "process 2 of the run was lost: it said nothing for 0.6 s" in ends[0][0]
    assert "process 2 of the run was lost" in ends[1][0]


def test_silence_between_words_is_no_loss(run: Run):
    with pytest.raises(queue.Empty):
        run.ends.get(timeout=3 * SILENCE_S)


def test_an_error_of_one_process_ends_the_others_with_its_status(run: Run):
    run.peers[1].fail("groups.jsonl: no such\nfile", 2)
    ends = run.next_ends(2)
    assert ends[0] == ("process 0 of 3 ends: process 1 failed: groups.jsonl: no such file", 2)
    assert ends[2] == ("process 2 of 3 ends: process 1 failed: groups.jsonl: no such file", 2)


def test_whoever_said_farewell_may_go(run: Run):
    run.peers[2].finish()
    run.sockets[1].shutdown(socket.SHUT_RDWR)
    with pytest.raises(queue.Empty):
        run.ends.get(timeout=3 * SILENCE_S)


def test_only_those_with_the_token_are_let_in():
    server = listen("127.0.0.1")
    port = server.getsockname()[1]
    found: dict[int, socket.socket] = {}
    waiting = threading.Thread(
        target=lambda: found.update(accept(server, "secret", count=2, timeout_s=SOON_S))
    )
    waiting.start()
    stranger = connect("127.0.0.1", port, "guess", index=1, timeout_s=SOON_S)
    friend = connect("127.0.0.1", port, "secret", index=1, timeout_s=SOON_S)
    waiting.join(SOON_S)
    friend.sendall(b"hello\n")
    assert found[1].recv(6) == b"hello\n"
    assert stranger.recv(1) == b""
    for connection in (stranger, friend, found[1]):
        connection.close()


def test_processes_that_do_not_come_are_not_waited_for_for_ever():
    with pytest.raises(TimeoutError):
        accept(listen("127.0.0.1"), "secret", count=2, timeout_s=0.05)


def test_strangers_that_say_nothing_or_hang_up_do_not_end_the_start(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("jaxrank.training.peers._GREETING_S", 0.1)
    server = listen("127.0.0.1")
    address = server.getsockname()
    silent = socket.create_connection(address)
    reset = socket.create_connection(address)
    reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    reset.close()
    friend = connect(*address, "secret", index=1, timeout_s=SOON_S)
    found = accept(server, "secret", count=2, timeout_s=SOON_S)
    assert list(found) == [1]
    assert silent.recv(1) == b""
    for connection in (silent, friend, found[1]):
        connection.close()


def test_strangers_do_not_lengthen_the_wait(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("jaxrank.training.peers._GREETING_S", 0.1)
    server = listen("127.0.0.1")
    silent = [socket.create_connection(server.getsockname()) for _ in range(20)]
    begin_s = time.monotonic()
    with pytest.raises(TimeoutError):
        accept(server, "secret", count=2, timeout_s=0.15)
    assert time.monotonic() - begin_s < 1
    for connection in silent:
        connection.close()
