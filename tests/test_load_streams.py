"""Many readers of events at once: the app on uvicorn, the real control plane, a simulated cluster."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from .real_server import JOBS, RealServer, real_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
READERS = 200
EPOCHS = 30
PATIENCE_S = 120.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RealServer]:
    with real_server(tmp_path, send_timeout_s=3.0) as found:
        yield found


def until(wanted: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not wanted():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def head_of(server: RealServer, path: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{server.port}", f"X-API-Key: {server.key}", "", ""]
    return "\r\n".join(lines).encode()


async def read_to_the_end(server: RealServer, job: int) -> list[int]:
    """The `seq` of every event of a job, each as it comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(head_of(server, f"{JOBS}/{job}/events/stream"))
        assert b" 200 " in await reader.readline()
        found = []
        while line := await reader.readline():
            if line.startswith(b"data: "):
                found.append(int(json.loads(line[6:])["seq"]))
            elif line == b"0\r\n":
                break
        return found
    finally:
        writer.close()


def epoch(number: int) -> dict[str, object]:
    return {"type": "epoch", "epoch": number, "metrics": {"loss": 1.0 / number}, "best": {}}


def test_two_hundred_readers_all_get_every_event_in_its_order(server: RealServer) -> None:
    job = server.start_job(epochs=EPOCHS)

    async def all_read() -> list[list[int]]:
        readers = [asyncio.create_task(read_to_the_end(server, job)) for _ in range(READERS)]
        await asyncio.to_thread(until, lambda: server.streams == READERS)
        for number in range(1, EPOCHS + 1):
            await asyncio.to_thread(server.say, job, epoch(number))
        await asyncio.to_thread(server.finish, job)
        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.gather(*readers)

    found = asyncio.run(all_read())
    told = [event.seq for event in server.queries.events(job_id=job)]
    assert len(told) >= EPOCHS
    assert all(each == told for each in found)
    until(lambda: server.streams == 0)


def test_a_reader_that_reads_nothing_is_let_go_and_holds_up_nobody(server: RealServer) -> None:
    job = server.start_job(epochs=EPOCHS)
    slow = socket.socket()
    # As small as the system lets it be, so that the server soon has to wait for it.
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    slow.connect(("127.0.0.1", server.port))
    slow.sendall(head_of(server, f"{JOBS}/{job}/events/stream"))
    until(lambda: server.streams == 1)
    # Larger than what the system and uvicorn take on behalf of a client: some megabytes.
    warning = {"type": "warning", "message": "x" * 60_000}

    async def quick_one_reads() -> list[int]:
        reading = asyncio.create_task(read_to_the_end(server, job))
        await asyncio.to_thread(until, lambda: server.streams == 2)
        for number in range(120):
            await asyncio.to_thread(server.say, job, {**warning, "message": f"{number} {warning['message']}"})
        await asyncio.to_thread(server.finish, job)
        async with asyncio.timeout(PATIENCE_S):
            return await reading

    found = asyncio.run(quick_one_reads())
    assert found == [event.seq for event in server.queries.events(job_id=job)]
    until(lambda: server.streams == 0)
    taken = 0
    with slow, suppress(ConnectionResetError):
        slow.settimeout(10)
        while data := slow.recv(1 << 16):
            taken += len(data)
    assert taken < 120 * 60_000, "it was let go in the middle, not served to its end"


def test_a_browser_that_goes_away_leaves_nothing_behind(server: RealServer) -> None:
    job = server.start_job(epochs=EPOCHS)
    browsers = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(50)]
    for number, browser in enumerate(browsers):
        browser.sendall(head_of(server, f"{JOBS}/{job}/events/stream" if number % 2 else "/api/v1/events/stream"))
    until(lambda: server.streams == len(browsers))
    server.say(job, epoch(1))
    for number, browser in enumerate(browsers):
        if number % 3 == 0:
            # A reset instead of a farewell, as when a machine falls asleep.
            browser.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        browser.close()
    server.say(job, epoch(2))
    until(lambda: server.streams == 0)
    server.finish(job)
    assert asyncio.run(read_to_the_end(server, job)) == [event.seq for event in server.queries.events(job_id=job)]
