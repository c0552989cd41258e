"""P9: seconds per durable event through the control plane, against single commits and against MLflow.

    python benchmarks/control_events.py [--rounds 5] [--mlflow-python VENV/bin/python] [--in-process-only] [--json FILE]

An event is one epoch's metric; it counts when the commit that holds it is on disk (SQLite, WAL, synchronous=FULL).

    reporter     eight drivers' `Reporter`s, which send what has gathered, up to 500 at once, to an actor on a Ray of
                 this script's own
    actor        eight threads that call the same actor with batches of 25
    ours         the same calls in one process: what is left is what Ray's border costs
    raw          a commit per row with the same settings, by the standard library
    mlflow       `log_batch` of 25 metrics into its own SQLite, no server
    mlflow 500   `log_batch` of 500

Targets, of what goes through the actor: raw ÷ it ≥ 10, and MLflow ÷ it ≥ 5 in batches like its own, which are `mlflow`
for `actor` and `mlflow 500` for `reporter`.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median

from control_runs import SPEC, actor_of, open_plane, own_ray
from ratio import Samples, compare, interleave, medians, show

from eagleray.control.commands import SYSTEM, Commands, Plain
from eagleray.control.reporter import Reporter

Drive = Callable[[Commands, int, int], None]
DRIVERS = 8
BATCH = 25

MLFLOW = """
import sys, time, logging
logging.disable(logging.CRITICAL)
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient
folder, count, batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
run = client.create_run(client.create_experiment(f"e{time.time_ns()}", artifact_location=folder)).info.run_id
started = time.perf_counter()
for first in range(0, count, batch):
    metrics = [Metric("loss", 0.5, int(time.time() * 1000), step) for step in range(first, first + batch)]
    client.log_batch(run, metrics=metrics)
print((time.perf_counter() - started) / count)
"""


def ours(folder: Path, per_driver: int) -> float:
    """Seconds per event."""
    plane, executor = open_plane(folder, drivers=DRIVERS)
    try:
        jobs = [plane.create_job(SYSTEM, SPEC, start=True)["id"] for _ in range(DRIVERS)]
        plane.dispatcher.tick()
        assert len(executor.starts) == DRIVERS
        return driven(jobs, plane, per_driver, in_batches)
    finally:
        plane.close()


def through_actor(folder: Path, per_driver: int, drive: Drive) -> float:
    """Seconds per event."""
    with actor_of(folder, DRIVERS) as commands:
        jobs = [commands.create_job(SYSTEM, SPEC, start=True)["id"] for _ in range(DRIVERS)]
        deadline = time.monotonic() + 30
        while commands.health()["started"] < DRIVERS:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return driven(jobs, commands, per_driver, drive)


def driven(jobs: Sequence[int], commands: Commands, per_driver: int, drive: Drive) -> float:
    """Seconds per event of drivers that all report at once."""
    started = time.perf_counter()
    with ThreadPoolExecutor(DRIVERS) as pool:
        list(pool.map(partial(drive, commands, per_driver), jobs))
    return (time.perf_counter() - started) / (len(jobs) * per_driver)


def in_batches(commands: Commands, count: int, job_id: int) -> None:
    commands.record(job_id, 1, [{"seq": 1, "type": "phase", "phase": "running", "message": ""}])
    for first in range(2, count + 2, BATCH):
        events: list[Plain] = [
            {"seq": seq, "type": "epoch", "epoch": seq - 1, "metrics": {"loss": 0.5}, "best": {}}
            for seq in range(first, first + BATCH)
        ]
        commands.record(job_id, 1, events)


def by_reporter(commands: Commands, count: int, job_id: int) -> None:
    reporter = Reporter(job_id, 1, lambda: commands, lambda: None)
    reporter.start()
    reporter.emit("phase", phase="running", message="")
    for epoch in range(1, count + 1):
        reporter.emit("epoch", epoch=epoch, metrics={"loss": 0.5}, best={})
    if not reporter.close(120):
        raise SystemExit("the reporter was not done in time")


def raw(folder: Path, count: int) -> float:
    connection = sqlite3.connect(folder / "raw.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE metrics (job_id INTEGER, key TEXT, epoch INTEGER, value REAL)")
    started = time.perf_counter()
    for number in range(count):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO metrics VALUES (1, 'loss', ?, 0.5)", (number,))
        connection.execute("COMMIT")
    taken = time.perf_counter() - started
    connection.close()
    return taken / count


def mlflow(python: str, batch: int, folder: Path, count: int) -> float:
    found = subprocess.run(
        [python, "-c", MLFLOW, str(folder), str(count), str(batch)],
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return float(found.stdout.split()[-1])


def fresh(way: Callable[[Path], float], scratch: Path) -> float:
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        return way(Path(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=4000, help="per driver")
    parser.add_argument("--commits", type=int, default=500, help="of the raw peer, and metrics of MLflow")
    parser.add_argument("--mlflow-python", help="an interpreter that has mlflow; without it that peer is left out")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()), help="on the disk to measure")
    parser.add_argument("--in-process-only", action="store_true", help="without Ray and what its border costs")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    ways = {
        "ours": partial(fresh, partial(ours, per_driver=options.events), options.scratch),
        "raw": partial(fresh, partial(raw, count=options.commits), options.scratch),
        "raw again": partial(fresh, partial(raw, count=options.commits), options.scratch),
    }
    if options.mlflow_python:
        for name, batch in (("mlflow", BATCH), ("mlflow 500", 500)):
            peer = partial(mlflow, options.mlflow_python, batch, count=max(options.commits, batch))
            ways[name] = partial(fresh, peer, options.scratch)
    with ExitStack() as held:
        if not options.in_process_only:
            held.enter_context(own_ray())
            for name, drive in (("actor", in_batches), ("reporter", by_reporter)):
                through = partial(through_actor, per_driver=options.events, drive=drive)
                ways[name] = partial(fresh, through, options.scratch)
        samples = interleave(ways, options.rounds)
    result = {"control": compare(samples, "raw again", "raw"), **ratios(samples), "samples": samples}
    show(result)
    if options.json:
        options.json.write_text(json.dumps({**result, "medians": medians(samples)}), encoding="utf-8")


def ratios(samples: Samples) -> dict[str, object]:
    found: dict[str, object] = {}
    for way in ("reporter", "actor", "ours"):
        for peer in ("raw", "mlflow", "mlflow 500"):
            if way in samples and peer in samples:
                found[f"{peer} ÷ {way}"] = compare(samples, peer, way)
    if "actor" in samples:
        found["actor ÷ ours"] = compare(samples, "actor", "ours")
    return {**found, "events per second": {way: round(1 / median(taken)) for way, taken in samples.items()}}


if __name__ == "__main__":
    main()
