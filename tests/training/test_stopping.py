"""Stopping: what signals do while a training runs, and that they do it no longer afterwards."""

import os
import signal
import threading
import time

import pytest

from jaxrank.errors import TrainingStoppedError
from jaxrank.training.stopping import Stopping

SIGNALS = [signal.SIGTERM, signal.SIGINT]


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_makes_a_stop_due_and_says_so_once(number: int):
    said: list[str] = []
    with Stopping(said.append) as stopping:
        assert not stopping.is_due(1)
        send(number)
        assert stopping.is_due(1)
        send(signal.SIGTERM)
        time.sleep(0.1)
    assert len(said) == 1
    assert said[0].startswith("Ctrl-C:" if number == signal.SIGINT else "SIGTERM:")


@pytest.mark.parametrize("first", SIGNALS)
def test_a_ctrl_c_after_any_signal_stops_at_once(first: int):
    with Stopping(lambda line: None), pytest.raises(KeyboardInterrupt):
        send(first)
        send(signal.SIGINT)


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(KeyError), Stopping(lambda line: None):
        assert [signal.getsignal(number) for number in SIGNALS] != before
        raise KeyError
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_work_that_can_be_done_again_is_left():
    with Stopping(lambda line: None) as stopping:
        with pytest.raises(TrainingStoppedError), stopping.at_once():
            send(signal.SIGTERM)
            raise AssertionError("it goes on")
        # Nor is it begun once a stop is due.
        with pytest.raises(TrainingStoppedError), stopping.at_once():
            raise AssertionError("it is begun")


def test_several_processes_agree_every_few_steps_and_finish_what_they_do_together():
    asked: list[bool] = []

    def agree(flag: bool) -> bool:
        asked.append(flag)
        return True

    with Stopping(lambda line: None, agree=agree, agree_every=5) as stopping:
        assert [step for step in range(1, 11) if stopping.is_due(step)] == [5, 10]
        send(signal.SIGTERM)
        with stopping.at_once():
            pass
        assert stopping.is_due(15)
    assert asked == [False, False, True]


def test_another_thread_leaves_signals_alone():
    before = signal.getsignal(signal.SIGTERM)
    found = []

    def work() -> None:
        with Stopping(lambda line: None) as stopping:
            found.append((signal.getsignal(signal.SIGTERM), stopping.is_due(1)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(before, False)]
