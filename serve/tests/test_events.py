"""Events over Server-Sent Events and WebSockets, on a real server."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as connect_socket

from eagleray.client import Client
from eagleray.control.commands import SYSTEM
from eagleray.jobs.phases import Phase
from eagleray_serve import streams

from .conftest import SPEC, Serve
from .fake import FakePlane


@pytest.fixture
def job(plane: FakePlane) -> int:
    return int(plane.create_job(SYSTEM, SPEC, start=True)["id"])


def read(address: str, key: str, path: str, after: int = 0) -> list[dict[str, Any]]:
    """All events of a stream that ends."""
    headers = {"Authorization": f"Bearer {key}"} | ({"Last-Event-ID": str(after)} if after else {})
    with httpx.stream("GET", f"http://{address}{path}", headers=headers, timeout=30) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        return [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]


def stream_of(job: int) -> str:
    return f"/api/v1/training/jobs/{job}/events/stream"


def test_a_jobs_stream_follows_it_to_its_end(serve: Serve, plane: FakePlane, job: int, keys: dict[str, str]) -> None:
    address = serve()
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read, address, keys["writer"], stream_of(job))
        for epoch in range(1, 4):
            time.sleep(0.05)
            plane.happen(job, "epoch", {"epoch": epoch})
        plane.happen(job, "phase", {"phase": "completed"}, phase=Phase.COMPLETED)
        events = reading.result(20)
    assert [event["type"] for event in events] == ["phase", "epoch", "epoch", "epoch", "phase"]


def test_a_stream_goes_on_behind_the_last_event(serve: Serve, plane: FakePlane, job: int, keys: dict[str, str]) -> None:
    address = serve()
    for epoch in range(1, 6):
        plane.happen(job, "epoch", {"epoch": epoch})
    plane.happen(job, "phase", phase=Phase.COMPLETED)
    whole = read(address, keys["writer"], stream_of(job))
    rest = read(address, keys["writer"], stream_of(job), after=whole[2]["seq"])
    assert rest == whole[3:]
    ended = httpx.get(
        f"http://{address}{stream_of(job)}",
        headers={"X-API-Key": keys["writer"], "Last-Event-ID": str(rest[-1]["seq"])},
    )
    assert ended.status_code == 204


def test_a_stream_of_all_jobs_shows_only_what_the_key_sees(
    serve: Serve, plane: FakePlane, job: int, keys: dict[str, str]
) -> None:
    other = plane.create_job(SYSTEM, {**SPEC, "project_id": "mine"})["id"]
    address = serve(stream_s=3.0)
    with ThreadPoolExecutor(2) as pool:
        all_of_it = pool.submit(read, address, keys["writer"], "/api/v1/events/stream")
        wait_for_streams(address, keys, 1)
        plane.happen(other, "epoch")
        plane.happen(job, "epoch")
        assert [event["job_id"] for event in all_of_it.result(20)] == [job]


def test_a_socket_says_the_same_as_a_stream(serve: Serve, plane: FakePlane, job: int, keys: dict[str, str]) -> None:
    address = serve()
    headers = {"Authorization": f"Bearer {keys['writer']}"}
    with connect_socket(
        f"ws://{address}/api/v1/training/jobs/{job}/events/ws", additional_headers=headers
    ) as connection:
        first = json.loads(connection.recv(10))
        plane.happen(job, "epoch", {"epoch": 1})
        plane.happen(job, "phase", phase=Phase.COMPLETED)
        said = [first, *(json.loads(message) for message in connection)]
    assert said == read(address, keys["writer"], stream_of(job))
    with connect_socket(
        f"ws://{address}/api/v1/training/jobs/{job}/events/ws?after={first['seq']}", additional_headers=headers
    ) as connection:
        assert [json.loads(message) for message in connection] == said[1:]


@pytest.fixture
def lagging(plane: FakePlane, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody is told that there is something new, as where the control plane has just gone away."""
    released = threading.Event()
    monkeypatch.setattr(plane, "wait_for_events", lambda *_: released.wait(30))
    monkeypatch.setattr(streams, "KEEP_ALIVE_S", 0.3)
    yield
    released.set()


def test_a_stream_that_hears_nothing_still_ends_with_the_last_event(
    lagging: None, serve: Serve, plane: FakePlane, job: int, keys: dict[str, str]
) -> None:
    address = serve()
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read, address, keys["writer"], stream_of(job))
        wait_for_streams(address, keys, 1)
        plane.happen(job, "phase", {"phase": "completed"}, phase=Phase.COMPLETED)
        assert [event["data"]["phase"] for event in reading.result(20)] == ["queued", "completed"]


def test_204_is_not_said_while_there_is_an_event_left(
    lagging: None, serve: Serve, plane: FakePlane, job: int, keys: dict[str, str]
) -> None:
    address = serve()
    headers = {"Authorization": f"Bearer {keys['writer']}"}
    with httpx.stream("GET", f"http://{address}/api/v1/events/stream", headers=headers) as other:
        chunks = other.iter_bytes()
        next(chunks)
        time.sleep(0.2)  # the feed has read what there is
        seen = plane.queries.newest_seq()
        plane.happen(job, "phase", {"phase": "completed"}, phase=Phase.COMPLETED)
        assert [event["data"]["phase"] for event in read(address, keys["writer"], stream_of(job), seen)] == [
            "completed"
        ]


def test_a_revoked_key_loses_its_open_streams(
    serve: Serve, plane: FakePlane, job: int, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "KEEP_ALIVE_S", 0.3)
    made = plane.create_key(SYSTEM, name="short", scopes=["read"], projects=None)
    address = serve(key_cache_s=0.1)
    headers = {"Authorization": f"Bearer {made['key']}"}
    with (
        ThreadPoolExecutor(1) as pool,
        connect_socket(f"ws://{address}/api/v1/events/ws", additional_headers=headers) as connection,
    ):
        reading = pool.submit(read, address, made["key"], stream_of(job))
        wait_for_streams(address, keys, 2)
        time.sleep(0.7)
        assert open_streams(address, keys) == 2, "a good key keeps them"
        plane.revoke_key(SYSTEM, made["id"])
        assert [event["type"] for event in reading.result(5)] == ["phase"]
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(5)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008


def test_a_stream_ends_after_so_many_bytes_and_goes_on_when_asked_again(
    serve: Serve, plane: FakePlane, job: int, keys: dict[str, str]
) -> None:
    for epoch in range(1, 11):
        plane.happen(job, "epoch", {"epoch": epoch, "padding": "x" * 400})
    plane.happen(job, "phase", phase=Phase.COMPLETED)
    address = serve(stream_bytes=2000)
    first = read(address, keys["writer"], stream_of(job))
    assert len(first) < 6
    with Client(f"http://{address}", keys["writer"]) as client:
        assert len(list(client.follow(job))) == 12


def open_streams(address: str, keys: dict[str, str]) -> int:
    text = httpx.get(f"http://{address}/metrics", headers={"X-API-Key": keys["admin"]}).text
    return int(float(next(row for row in text.splitlines() if row.startswith("eagleray_http_streams ")).split()[1]))


def wait_for_streams(address: str, keys: dict[str, str], number: int) -> None:
    for _ in range(100):
        if open_streams(address, keys) == number:
            return
        time.sleep(0.05)
    raise AssertionError(f"{open_streams(address, keys)} streams are open, not {number}")


def test_clients_that_leave_are_forgotten(serve: Serve, job: int, keys: dict[str, str]) -> None:
    address = serve()
    headers = {"Authorization": f"Bearer {keys['admin']}"}
    with (
        httpx.stream("GET", f"http://{address}{stream_of(job)}", headers=headers) as answer,
        connect_socket(f"ws://{address}/api/v1/events/ws", additional_headers=headers),
    ):
        chunks = answer.iter_bytes()  # kept, for a collected iterator closes the connection
        next(chunks)
        wait_for_streams(address, keys, 2)
    wait_for_streams(address, keys, 0)


def test_there_are_only_so_many_streams(serve: Serve, job: int, keys: dict[str, str]) -> None:
    address = serve(max_streams=1)
    headers = {"Authorization": f"Bearer {keys['writer']}"}
    with httpx.stream("GET", f"http://{address}{stream_of(job)}", headers=headers) as answer:
        chunks = answer.iter_bytes()  # kept, for a collected iterator closes the connection
        next(chunks)
        refused = httpx.get(f"http://{address}{stream_of(job)}", headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")


def test_a_reader_that_does_not_read_is_dropped_and_costs_no_memory(
    serve: Serve, plane: FakePlane, job: int, keys: dict[str, str]
) -> None:
    """It is let go after `send_timeout_s`, and another reader got everything meanwhile."""
    address = serve(send_timeout_s=0.5)
    host, port = address.split(":")
    with socket.create_connection((host, int(port))) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        request = f"GET {stream_of(job)} HTTP/1.1\r\nHost: {address}\r\nX-API-Key: {keys['writer']}\r\n\r\n"
        slow.sendall(request.encode())
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(read, address, keys["writer"], stream_of(job))
            for _ in range(60):
                plane.happen(job, "epoch", {"padding": "x" * 200_000})
            plane.happen(job, "phase", phase=Phase.COMPLETED)
            assert len(reading.result(60)) == 62
        wait_for_streams(address, keys, 0)


@pytest.mark.slow
def test_two_hundred_streams_miss_nothing(serve: Serve, plane: FakePlane, job: int, keys: dict[str, str]) -> None:
    address = serve()
    with ThreadPoolExecutor(200) as pool:
        reading = [pool.submit(read, address, keys["writer"], stream_of(job)) for _ in range(200)]
        time.sleep(3)
        for epoch in range(1, 51):
            plane.happen(job, "epoch", {"epoch": epoch})
        plane.happen(job, "phase", phase=Phase.COMPLETED)
        for each in reading:
            assert len(each.result(100)) == 52
