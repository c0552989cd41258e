"""The line between driver and workers."""

import queue
import socket
import time
from collections.abc import Iterator
from multiprocessing import AuthenticationError
from typing import Any

import pytest

from eagleray.contract.errors import ConfigError
from eagleray.execution.channel import DriverChannel, WorkerChannel, check_port

Received = queue.Queue[dict[str, Any]]


@pytest.fixture
def received() -> Received:
    return queue.Queue()


@pytest.fixture
def driver(received: Received) -> Iterator[DriverChannel]:
    channel = DriverChannel("127.0.0.1", received.put)
    yield channel
    channel.close()


def test_messages_arrive_in_order(driver: DriverChannel, received: Received) -> None:
    worker = WorkerChannel(driver.address)
    for number in range(100):
        worker.send({"type": "log", "n": number})
    assert [received.get(timeout=5)["n"] for _ in range(100)] == list(range(100))
    worker.close()


def test_what_a_worker_said_before_it_ended_has_been_received_after_draining() -> None:
    heard: list[int] = []

    def slowly(message: dict[str, Any]) -> None:
        time.sleep(0.01)
        heard.append(message["n"])

    driver = DriverChannel("127.0.0.1", slowly)
    worker = WorkerChannel(driver.address)
    for number in range(50):
        worker.send({"type": "log", "n": number})
    worker.close()
    assert driver.drain(10)
    assert heard == list(range(50))
    driver.close()


def test_draining_gives_up_on_a_worker_that_stays(driver: DriverChannel, received: Received) -> None:
    worker = WorkerChannel(driver.address)
    worker.send({"type": "hello"})
    received.get(timeout=5)
    assert not driver.drain(0.1)
    worker.close()


def test_stop_reaches_workers_that_are_there_and_those_that_come_later(driver: DriverChannel) -> None:
    early = WorkerChannel(driver.address)
    early.send({"type": "hello"})
    driver.stop()
    late = WorkerChannel(driver.address)
    assert early.stop_requested.wait(5)
    assert late.stop_requested.wait(5)
    early.close()
    late.close()


def test_a_stranger_is_refused_and_the_line_goes_on(driver: DriverChannel, received: Received) -> None:
    with pytest.raises((AuthenticationError, EOFError, ConnectionResetError)):
        WorkerChannel({**driver.address, "secret": "00" * 32})
    worker = WorkerChannel(driver.address)
    worker.send({"type": "hello"})
    assert received.get(timeout=5) == {"type": "hello"}
    worker.close()


def test_sending_to_a_driver_that_is_gone_never_raises(received: Received) -> None:
    driver = DriverChannel("127.0.0.1", received.put)
    worker = WorkerChannel(driver.address)
    driver.close()
    for _ in range(50):
        worker.send({"type": "progress", "filler": "x" * 10_000})
    worker.close()


@pytest.mark.parametrize("port", ["abc", "-1", "70000", "1.5"])
def test_a_fixed_port_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    monkeypatch.setenv("EAGLERAY_CHANNEL_PORT", port)
    with pytest.raises(ConfigError, match=f"EAGLERAY_CHANNEL_PORT is '{port}'"):
        check_port()


def test_a_fixed_port_that_is_in_use_is_refused_before_and_when_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        monkeypatch.setenv("EAGLERAY_CHANNEL_PORT", str(port))
        with pytest.raises(ConfigError, match=f"port {port}"):
            check_port()
        with pytest.raises(ConfigError, match=f"port {port}"):
            DriverChannel("127.0.0.1", print)
    check_port()
