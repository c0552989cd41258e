"""A control plane whose database is not there yet, or never will be."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from eagleray.contract.errors import ConfigError, EaglerayError
from eagleray.control.errors import ControlPlaneAwayError, DatabaseBusyError, DatabaseError, UnusableDatabaseError
from eagleray.control.plane import ControlPlane
from eagleray.control.starting import StartingPlane

from .conftest import House


class Opening:
    """Raises `errors` one by one, then gives the plane."""

    def __init__(self, plane: ControlPlane, *errors: Exception) -> None:
        self.plane = plane
        self.errors = list(errors)
        self.tries = 0
        self.again = threading.Semaphore(1)

    def __call__(self) -> ControlPlane:
        assert self.again.acquire(timeout=20)
        self.tries += 1
        if self.errors:
            raise self.errors.pop(0)
        return self.plane


Start = Callable[..., tuple[Opening, StartingPlane]]


@pytest.fixture
def start(house: House) -> Iterator[Start]:
    made: list[tuple[Opening, StartingPlane]] = []

    def begin(*errors: Exception) -> tuple[Opening, StartingPlane]:
        opening = Opening(house.plane, *errors)
        made.append((opening, StartingPlane(opening, pause_s=0.01)))
        return made[-1]

    yield begin
    for opening, starting in made:
        opening.again.release()
        starting._closed.set()
        starting._thread.join(20)


def health(starting: StartingPlane) -> dict[str, Any]:
    return starting.call("health", (), {})


def until_up(starting: StartingPlane) -> None:
    deadline = time.monotonic() + 20
    while "error" in health(starting):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    "error",
    [DatabaseBusyError("Another control plane writes this database."), DatabaseError("away"), OSError("no route")],
    ids=["old owner", "server away", "store away"],
)
def test_what_passes_by_itself_is_waited_for_and_named_meanwhile(start: Start, error: Exception) -> None:
    opening, starting = start(error)
    answer = health(starting)["error"]
    assert isinstance(answer, ControlPlaneAwayError) and str(error).split(".")[0] in answer.message
    opening.again.release()
    until_up(starting)
    assert health(starting)["value"]["status"] == "ok"


@pytest.mark.parametrize("error", [UnusableDatabaseError("damaged", "restore it"), ConfigError("wrong")], ids=str)
def test_what_does_not_pass_is_told_as_it_is_until_somebody_mends_it(start: Start, error: EaglerayError) -> None:
    opening, starting = start(error)
    assert health(starting)["error"] is error
    opening.again.release()
    until_up(starting)
    assert opening.tries == 2
