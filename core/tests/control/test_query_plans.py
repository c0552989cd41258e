"""What a job costs does not grow with the jobs that were: no statement of its life reads a whole table."""

from __future__ import annotations

from typing import Any

from sqlalchemy import event

from eagleray.contract.failures import FailureKind
from eagleray.control.commands import SYSTEM

from .conftest import Driver, House

# Idempotency keys last a day, so deleting a job may look through them.
GROWING = ("training_jobs", "attempts", "events", "metrics", "log_lines")


def test_no_statement_of_a_jobs_life_reads_a_whole_table(house: House) -> None:
    seen: dict[str, Any] = {}

    @event.listens_for(house.engine, "before_cursor_execute")
    def note(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE", "INSERT")):
            seen.setdefault(statement, parameters[0] if many else parameters)

    first, second = house.create(idempotency_key="once"), house.create(start=False)
    house.tick(2)
    driver = Driver(house, first, 1)
    driver.run()
    driver.say({"type": "log", "rank": 0, "lines": ["a", "b"]}, {"type": "progress", "epoch": 1, "step": 1})
    driver.say({"type": "progress", "epoch": 1, "step": 2})
    driver.epoch(1)
    driver.checkpoint(1)
    driver.finish("failed", FailureKind.WORKER_LOST)
    house.tick(2)
    house.queries.get_job(first, None)
    house.plane.cancel_job(SYSTEM, first)
    house.plane.delete_job(SYSTEM, second)
    house.tick(2)
    event.remove(house.engine, "before_cursor_execute", note)

    assert len(seen) > 30
    scans = []
    tables = tuple(f"SCAN {name}" for name in GROWING)
    with house.engine.connect() as connection:
        for statement, parameters in seen.items():
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
            scans += [(row[-1], statement) for row in plan if row[-1].startswith(tables)]
    assert not scans
