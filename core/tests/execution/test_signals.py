"""What the signals of a terminal, a batch system and a user mean to a job."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from eagleray.execution.signals import StopSignals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=str)
def test_the_first_signal_asks_and_the_second_cancels(number: signal.Signals) -> None:
    asked = threading.Event()
    with StopSignals(asked.set) as signals:
        signals.graceful = True
        os.kill(os.getpid(), number)
        assert asked.wait(5)
        assert not signals.cancelled.is_set()
        os.kill(os.getpid(), number)
        assert signals.cancelled.is_set()


def test_before_there_is_something_to_save_a_signal_interrupts() -> None:
    with StopSignals(lambda: None), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGHUP)


def test_a_job_under_nohup_outlives_its_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals(lambda: None) as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not signals.stop_requested
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_cancel_from_a_thread_is_a_wish_to_stop() -> None:
    with StopSignals(lambda: None) as signals:
        signals.graceful = True
        signals.cancel()
        assert signals.stop_requested
