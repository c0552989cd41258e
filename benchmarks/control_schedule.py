"""How the queue scales: a scheduling pass, and the way of one job from its creation to the cluster.

    python benchmarks/control_schedule.py [--rounds 10] [--scratch DIR] [--json FILE]

A pass over 10,000 queued jobs and 500 nodes ÷ one over 1,000 jobs and 50 nodes, target ≤ 12 (10 would be linear).
Create → handed to a simulated cluster with 100 and 10,000 finished jobs in the table ÷ an empty one, target ≤ 1.10.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

from control_runs import SPEC, open_plane
from ratio import compare, interleave, medians, show
from sqlalchemy import insert, select

from eagleray.control.commands import SYSTEM
from eagleray.control.database.opening import open_database
from eagleray.control.database.tables import TrainingJob
from eagleray.control.decisions import Capacity, Gang, Node, QueuedJob, ScheduleState, schedule

SMALL, LARGE = (1_000, 50), (10_000, 500)


def state(jobs: int, nodes: int) -> ScheduleState:
    """A mixed queue: 20 projects, 3 priorities, gangs of 1 to 4 workers with 1 or 2 GPUs; some GPUs are taken."""
    free = [{"CPU": 16.0, "GPU": 8.0 if number % 2 else 3.0} for number in range(nodes)]
    capacity = Capacity(tuple(Node(f"n{number}", {"CPU": 16.0, "GPU": 8.0}, free[number]) for number in range(nodes)))
    queued = [
        QueuedJob(
            number,
            f"p{number % 20}",
            number % 3,
            float(number),
            Gang(1 + number % 4, (("CPU", 1.0), ("GPU", 1.0 + number % 2))),
        )
        for number in range(jobs)
    ]
    return ScheduleState(1e6, queued, [], capacity, max_drivers=1_000_000)


def one_pass(found: ScheduleState) -> float:
    started = time.perf_counter()
    schedule(found)
    return time.perf_counter() - started


class Table:
    """A control plane whose table holds `jobs` finished jobs."""

    def __init__(self, folder: Path, jobs: int) -> None:
        folder.mkdir()
        self.plane, self.executor = open_plane(folder, drivers=1_000_000, dispatch=True)
        self._create()
        engine = open_database(f"sqlite:///{folder / 'eagleray.db'}", folder)
        with engine.connect() as connection, connection.begin():
            row = dict(connection.execute(select(*TrainingJob.__table__.columns)).one()._mapping)
            row |= {"phase": "completed", "status": "completed"}
            rows = [{**row, "id": 1_000_000 - number} for number in range(jobs)]
            if rows:
                connection.execute(insert(TrainingJob), rows)
        engine.dispose()

    def handed(self, jobs: int = 20) -> float:
        """Seconds from `create_job` to the submission; the median of some."""
        return median(self._create() for _ in range(jobs))

    def _create(self) -> float:
        started = time.perf_counter()
        job_id = self.plane.create_job(SYSTEM, SPEC, start=True)["id"]
        name = f"{job_id}-1"
        while name not in self.executor.starts:
            time.sleep(0.0002)
        taken = time.perf_counter() - started
        # Ended, so that what is running stays the same in all tables.
        self.plane.record(job_id, 1, [{"seq": 1, "type": "phase", "phase": "running", "message": ""}])
        self.plane.record(job_id, 1, [{"seq": 2, "type": "finished", "outcome": "completed", "failure": None}])
        self.executor.ended(name)
        return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--scratch", help="where the databases lie; /dev/shm leaves the disk out of it")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    passes = interleave(
        {
            "small": partial(one_pass, state(*SMALL)),
            "large": partial(one_pass, state(*LARGE)),
            "small again": partial(one_pass, state(*SMALL)),
        },
        options.rounds,
    )
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        tables = {name: Table(Path(folder) / str(name), name) for name in (0, 100, 10_000)}
        ways = {str(name): table.handed for name, table in tables.items()} | {"0 again": tables[0].handed}
        handed = interleave(ways, options.rounds)
        for table in tables.values():
            table.plane.close()
    result = {
        "pass, control": compare(passes, "small again", "small"),
        "pass, large ÷ small": compare(passes, "large", "small"),
        "handed, control": compare(handed, "0 again", "0"),
        "handed, 100 ÷ 0": compare(handed, "100", "0"),
        "handed, 10000 ÷ 0": compare(handed, "10000", "0"),
        "pass, ms": {name: round(seconds * 1000, 1) for name, seconds in _exact(passes).items()},
        "handed, ms": {name: round(seconds * 1000, 1) for name, seconds in _exact(handed).items()},
        "samples": {"passes": passes, "handed": handed},
    }
    show(result)
    if options.json:
        options.json.write_text(json.dumps({**result, "medians": medians(handed)}), encoding="utf-8")


def _exact(samples: dict[str, list[float]]) -> dict[str, float]:
    return {name: median(values) for name, values in samples.items()}


if __name__ == "__main__":
    main()
