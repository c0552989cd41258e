"""Many jobs and many figures: the app on uvicorn, the real control plane, a simulated cluster."""

from __future__ import annotations

import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from eagleray.control.commands import SYSTEM, Commands
from eagleray.control.reporter import Reporter
from eagleray.testing.invariants import History, check

from .real_server import JOBS, SPEC, RealServer, real_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
QUEUED, COMING = 1000, 200
RATE_HZ, SECONDS, KEYS = 100, 10.0, 5
MEMORY_BYTES = 32 << 20


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RealServer]:
    with real_server(tmp_path) as found:
        yield found


def pages(server: RealServer, **query: Any) -> Iterator[list[int]]:
    """Ids, page by page, as a client turns them over."""
    with httpx.Client(base_url=server.url, headers=server.headers, timeout=60) as client:
        after = None
        while True:
            page = client.get(JOBS, params={**query, **({"after": after} if after else {})}).json()
            yield [job["id"] for job in page["items"]]
            after = page["next"]
            if after is None:
                return


def test_a_thousand_queued_jobs_are_listed_once_each_while_new_ones_come(server: RealServer) -> None:
    known = [int(server.plane.create_job(SYSTEM, SPEC, start=True)["id"]) for _ in range(QUEUED)]
    over = threading.Event()
    coming: list[int] = []

    def create_more() -> None:
        while not over.is_set() and len(coming) < COMING:
            coming.append(int(server.plane.create_job(SYSTEM, SPEC, start=True)["id"]))

    thread = threading.Thread(target=create_more)
    thread.start()
    try:
        for size in (7, 50, 200):
            listed = [job for page in pages(server, limit=size, phase="queued") for job in page]
            assert len(listed) == len(set(listed)), "none twice"
            assert set(known) <= set(listed), "none missed"
            assert listed == sorted(listed, reverse=True)
    finally:
        over.set()
        thread.join()
    assert coming, "new ones came meanwhile"
    with httpx.Client(base_url=server.url, headers=server.headers, timeout=60) as client:
        assert client.get(f"{JOBS}/{known[-1]}").json()["queue_position"] == QUEUED


def test_figures_a_hundred_times_a_second_are_all_there_and_cost_bounded_memory(server: RealServer) -> None:
    """`RATE_HZ` reports a second through a driver's own reporter, each of `KEYS` figures and a line."""
    job = server.start_job(epochs=int(RATE_HZ * SECONDS))
    history = History()
    history.submitted(job)
    reporter = Reporter(job, 1, lambda: cast(Commands, _Numbered(server, job)), lambda: None)
    reporter.start()
    tracemalloc.start()
    began, count, late_s = time.monotonic(), 0, 0.0
    try:
        while count < RATE_HZ * SECONDS:
            count += 1
            metrics = {f"key{number}": count / (number + 1) for number in range(KEYS)}
            reporter.emit("epoch", epoch=count, metrics=metrics, best={})
            reporter.emit("log", rank=0, lines=[f"line {count}"])
            late_s = max(late_s, time.monotonic() - began - count / RATE_HZ)
            time.sleep(max(0.0, began + count / RATE_HZ - time.monotonic()))
        peak = tracemalloc.get_traced_memory()[1]
        assert reporter.close(120), "all of it was acknowledged"
    finally:
        tracemalloc.stop()
    assert peak < MEMORY_BYTES
    assert late_s < 1.0, "training never waits for the control plane"
    with httpx.Client(base_url=server.url, headers=server.headers, timeout=60) as client:
        points = client.get(f"{JOBS}/{job}/metrics").json()["items"]
        lines = [line for page in _log_pages(client, job) for line in page]
    assert len(points) == KEYS * count
    assert len({(point["key"], point["epoch"]) for point in points}) == len(points)
    assert [line["text"] for line in lines] == [f"line {number}" for number in range(1, count + 1)]
    for point in points:
        history.saw_metric(job, point["key"], point["epoch"])
    for line in lines:
        history.saw_line(job, line["id"], line["text"])
    server.finish(job)
    check(history, server.world)


def _log_pages(client: httpx.Client, job: int) -> Iterator[list[dict[str, Any]]]:
    after: dict[str, str] = {}
    while True:
        page = client.get(f"{JOBS}/{job}/logs", params={"limit": 200, **after}).json()
        yield page["items"]
        if page["next"] is None:
            return
        after = {"after": page["next"]}


class _Numbered:
    """The control plane as a driver sees it, behind what `RealServer.start_job` has said already."""

    def __init__(self, server: RealServer, job: int) -> None:
        self._server, self._job, self._offset = server, job, server.said[job]

    def record(self, job: int, attempt: int, events: list[dict[str, Any]]) -> int:
        shifted = [{**event, "seq": event["seq"] + self._offset} for event in events]
        kept = self._server.plane.record(job, attempt, shifted)
        self._server.said[job] = kept
        return kept
