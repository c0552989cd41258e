"""A driver's line to a control plane that comes and goes."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from eagleray.control import reporter as module
from eagleray.control.errors import ControlPlaneAwayError, FencedError, RejectedError
from eagleray.control.reporter import Reporter


class Plane:
    """What the control plane has acknowledged; `away` and `lose_next` are a test's to set."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.away = False
        self.lose_next = False
        self.fence = False
        self.connections = 0
        self.refused: int | None = None

    def connect(self) -> Any:
        self.connections += 1
        return self

    def record(self, job_id: int, attempt: int, events: Sequence[dict[str, Any]]) -> int:
        if self.fence:
            raise FencedError("superseded", "")
        if self.away:
            raise ControlPlaneAwayError("away", "")
        if self.refused is not None and any(event.get("n") == self.refused for event in events):
            raise RejectedError(f"{self.refused} is no number.", "")
        last = self.events[-1]["seq"] if self.events else 0
        self.events += [event for event in events if event["seq"] > last]
        if self.lose_next:
            self.lose_next = False
            raise ControlPlaneAwayError("the acknowledgement was lost", "")
        return int(events[-1]["seq"])

    def said(self, kind: str) -> list[Any]:
        return [event["n"] for event in self.events if event["type"] == kind]


@pytest.fixture
def plane() -> Plane:
    return Plane()


def reporting(plane: Plane, **options: Any) -> Reporter:
    made = Reporter(7, 1, plane.connect, options.pop("on_fenced", lambda: None), **{"heartbeat_s": 5.0, **options})
    made.start()
    return made


def until(wanted: Any) -> None:
    deadline = time.monotonic() + 10
    while not wanted():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_everything_arrives_in_order_with_numbers_from_one(plane: Plane) -> None:
    line = reporting(plane)
    for number in range(2000):
        line.emit("epoch", n=number)
    assert line.close(10)
    assert plane.said("epoch") == list(range(2000))
    assert [event["seq"] for event in plane.events] == list(range(1, 2001))


def test_what_was_not_acknowledged_is_said_again_and_counts_once(plane: Plane) -> None:
    plane.lose_next = True
    line = reporting(plane)
    line.emit("epoch", n=1)
    line.emit("epoch", n=2)
    assert line.close(10)
    assert plane.said("epoch") == [1, 2]
    assert plane.connections == 2


def test_a_control_plane_that_is_away_is_waited_for_and_emitting_never_waits(plane: Plane) -> None:
    plane.away = True
    line = reporting(plane)
    started = time.monotonic()
    for number in range(1000):
        line.emit("epoch", n=number)
    assert time.monotonic() - started < 1
    assert not line.close(0.5)
    plane.away = False
    assert line.close(15)
    assert plane.said("epoch") == list(range(1000))


def test_a_full_buffer_drops_lines_and_says_how_many_but_never_an_epoch(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_EVENTS", 10)
    plane.away = True
    line = reporting(plane)
    for number in range(100):
        line.emit("log", n=number)
    for number in range(50):
        line.emit("epoch", n=number)
    plane.away = False
    assert line.close(15)
    assert plane.said("epoch") == list(range(50))
    lost = next(event["message"] for event in plane.events if event["type"] == "warning")
    assert int(lost.split()[0]) + len(plane.said("log")) == 100


def test_of_progress_only_the_newest_waits(plane: Plane) -> None:
    plane.away = True
    line = reporting(plane)
    for number in range(500):
        line.emit("progress", n=number)
    plane.away = False
    assert line.close(15)
    assert len(plane.said("progress")) < 10
    assert plane.said("progress")[-1] == 499


def test_a_superseded_attempt_hears_of_it_by_its_heartbeat(plane: Plane) -> None:
    plane.fence = True
    told = threading.Event()
    line = reporting(plane, on_fenced=told.set, heartbeat_s=0.05)
    assert told.wait(5)
    assert line.fenced
    assert line.close(5)


def test_a_quiet_driver_still_gives_signs_of_life(plane: Plane) -> None:
    line = reporting(plane, heartbeat_s=0.05)
    until(lambda: sum(event["type"] == "heartbeat" for event in plane.events) >= 3)
    line.close(5)


def test_what_waits_is_bounded_in_bytes_too(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 1 << 20)
    plane.away = True
    line = reporting(plane)
    for number in range(100):
        line.emit("log", n=number, lines=["x" * 60_000])
    assert sum(len(event["lines"][0]) for event, _ in line._events if event["type"] == "log") <= 1 << 20
    plane.away = False
    assert line.close(15)
    assert any(event["type"] == "warning" for event in plane.events)
    assert line._bytes == 0


def test_of_a_batch_that_is_refused_only_what_cannot_be_kept_is_missing_and_that_is_said(plane: Plane) -> None:
    plane.refused = 7
    line = reporting(plane)
    for number in range(20):
        line.emit("epoch", n=number)
    assert line.close(15)
    assert plane.said("epoch") == [number for number in range(20) if number != 7]
    (warning,) = [event for event in plane.events if event["type"] == "warning"]
    assert warning["message"] == "An event of type 'epoch' is missing: 7 is no number."
    assert warning["seq"] == 8
