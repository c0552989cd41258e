"""A control plane over a database and a store of the test's own, and a cluster that the test moves by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from eagleray.contract.failures import FailureKind
from eagleray.control.commands import SYSTEM, Caller
from eagleray.control.database.opening import open_database
from eagleray.control.plane import ControlPlane
from eagleray.control.queries import Queries
from eagleray.control.settings import ControlSettings
from eagleray.control.specs import CheckedSpec, described
from eagleray.control.views import AttemptView, JobView
from eagleray.jobs.spec import make_spec
from eagleray.storage.local import LocalStore
from eagleray.testing.cluster import SimulatedExecutor

SPEC: dict[str, Any] = {"framework": "echo", "model_name": "echo-linear", "dataset_path": "/data", "epochs": 4}


FAST: dict[str, Any] = {"poll_s": 0.0, "grace_s": 0.0, "max_drivers": 4}


@dataclass
class Clock:
    now: datetime = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def pass_s(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def check(values: Mapping[str, Any]) -> CheckedSpec:
    return described(make_spec(values).model_copy(update={"task_type": "image-classification"}))


@dataclass
class Driver:
    """What the driver of one attempt would say."""

    house: House
    job_id: int
    number: int
    seq: int = 0

    def say(self, *events: dict[str, Any]) -> int:
        numbered = []
        for event in events:
            self.seq += 1
            numbered.append({"seq": self.seq, **event})
        return self.house.plane.record(self.job_id, self.number, numbered)

    def run(self, *, resumed_from: int | None = None) -> None:
        self.say(
            {"type": "phase", "phase": "preparing", "message": "environment"},
            {"type": "attempt", "attempt": self.number, "resumed_from_epoch": resumed_from},
            {"type": "phase", "phase": "running", "message": "loading data and model"},
        )

    def epoch(self, epoch: int, **metrics: float) -> None:
        best = {"epoch": epoch, "value": 0.5, "metric": "accuracy"}
        self.say({"type": "epoch", "epoch": epoch, "metrics": metrics or {"loss": 1.0 / epoch}, "best": best})

    def checkpoint(self, epoch: int) -> None:
        self.say({"type": "checkpoint", "epoch": epoch, "best": False})

    def finish(self, outcome: str, kind: FailureKind | None = None, message: str = "why", **facts: str) -> None:
        failure = {"kind": kind.value, "message": message, **facts} if kind else None
        self.say({"type": "finished", "outcome": outcome, "failure": failure})
        self.end()

    def end(self) -> None:
        self.house.executor.ended(f"{self.job_id}-{self.number}")


@dataclass
class House:
    """The control plane and what outlives it: `crash()` and `start()` give a new one over the same rows."""

    folder: Path
    settings: ControlSettings = field(default_factory=lambda: ControlSettings(**FAST))
    clock: Clock = field(default_factory=Clock)
    executor: SimulatedExecutor = field(default_factory=SimulatedExecutor)

    def start(self) -> None:
        self.engine = open_database(f"sqlite:///{self.folder / 'eagleray.db'}", self.folder)
        self.store = LocalStore(self.folder / "store")
        self.plane = ControlPlane(
            self.engine, self.executor, self.store, check, settings=self.settings, clock=self.clock
        )
        self.plane.start(owner_timeout_s=1, dispatch=False)
        self.queries = Queries(self.engine)

    def close(self) -> None:
        self.plane.close()
        self.engine.dispose()

    def restart(self) -> None:
        self.close()
        self.start()

    def tick(self, times: int = 1) -> None:
        for _ in range(times):
            self.plane.dispatcher.tick()
            self.plane.cleaner.clean()

    def create(self, *, caller: Caller = SYSTEM, start: bool = True, **changes: Any) -> int:
        options = {name: changes.pop(name) for name in ("priority", "idempotency_key") if name in changes}
        return int(self.plane.create_job(caller, {**SPEC, **changes}, start=start, **options)["id"])

    def job(self, job_id: int) -> JobView:
        return self.queries.get_job(job_id)

    def attempt(self, job_id: int) -> AttemptView:
        return self.queries.attempts(job_id)[-1]

    def driver(self, job_id: int, number: int | None = None) -> Driver:
        return Driver(self, job_id, number or self.attempt(job_id).number)

    def running(self, **changes: Any) -> tuple[int, Driver]:
        """A job whose first attempt runs."""
        job_id = self.create(**changes)
        self.tick()
        driver = self.driver(job_id)
        driver.run()
        return job_id, driver

    def types(self, job_id: int) -> list[str]:
        return [event.type for event in self.queries.events(job_id=job_id)]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    made.start()
    yield made
    made.close()


@pytest.fixture
def make_house(tmp_path: Path) -> Iterator[Callable[..., House]]:
    houses: list[House] = []

    def make(**settings: Any) -> House:
        house = House(tmp_path / str(len(houses)), ControlSettings(**{**FAST, **settings}))
        house.folder.mkdir()
        house.start()
        houses.append(house)
        return house

    yield make
    for house in houses:
        house.close()
