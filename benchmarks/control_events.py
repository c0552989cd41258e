"""P9: seconds per durable event through the control plane, against single commits and against MLflow.

    python benchmarks/control_events.py [--rounds 5] [--mlflow-python VENV/bin/python] [--in-process-only] [--json FILE]

An event is one epoch's metric. Eight drivers in threads send batches of 25 to `record`, which returns after the commit
is on disk (SQLite, WAL, synchronous=FULL). Actor: through `RemoteCommands` to an actor on a Ray of its own, as drivers
do. Ours: the same calls in one process, so what Ray's border costs is the difference. Raw: a commit per row with the
same settings, by the standard library. MLflow: `log_batch` of 25 metrics into its own SQLite, no server.
Targets, of the actor: raw ÷ actor ≥ 10, MLflow ÷ actor ≥ 5.
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

from eagleray.control.commands import SYSTEM, Plain

DRIVERS = 8
BATCH = 25

MLFLOW = """
import sys, time, logging
logging.disable(logging.CRITICAL)
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient
folder, count = sys.argv[1], int(sys.argv[2])
client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
run = client.create_run(client.create_experiment(f"e{time.time_ns()}", artifact_location=folder)).info.run_id
started = time.perf_counter()
for first in range(0, count, 25):
    metrics = [Metric("loss", 0.5, int(time.time() * 1000), step) for step in range(first, first + 25)]
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
        return driven(jobs, plane.record, per_driver)
    finally:
        plane.close()


def through_actor(folder: Path, per_driver: int) -> float:
    """Seconds per event."""
    with actor_of(folder, DRIVERS) as commands:
        jobs = [commands.create_job(SYSTEM, SPEC, start=True)["id"] for _ in range(DRIVERS)]
        deadline = time.monotonic() + 30
        while commands.health()["started"] < DRIVERS:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return driven(jobs, commands.record, per_driver)


def driven(jobs: Sequence[int], record: Callable[[int, int, list[Plain]], object], per_driver: int) -> float:
    """Seconds per event of drivers that all report at once."""

    def drive(job_id: int) -> None:
        record(job_id, 1, [{"seq": 1, "type": "phase", "phase": "running", "message": ""}])
        for first in range(2, per_driver + 2, BATCH):
            events: list[Plain] = [
                {"seq": seq, "type": "epoch", "epoch": seq - 1, "metrics": {"loss": 0.5}, "best": {}}
                for seq in range(first, first + BATCH)
            ]
            record(job_id, 1, events)

    started = time.perf_counter()
    with ThreadPoolExecutor(DRIVERS) as pool:
        list(pool.map(drive, jobs))
    return (time.perf_counter() - started) / (len(jobs) * per_driver)


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


def mlflow(python: str, folder: Path, count: int) -> float:
    found = subprocess.run(
        [python, "-c", MLFLOW, str(folder), str(count)], check=True, capture_output=True, text=True, timeout=300
    )
    return float(found.stdout.split()[-1])


def fresh(way: Callable[[Path], float], scratch: Path) -> float:
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        return way(Path(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=1000, help="per driver")
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
        ways["mlflow"] = partial(fresh, partial(mlflow, options.mlflow_python, count=options.commits), options.scratch)
    with ExitStack() as held:
        if not options.in_process_only:
            held.enter_context(own_ray())
            ways["actor"] = partial(fresh, partial(through_actor, per_driver=options.events), options.scratch)
        samples = interleave(ways, options.rounds)
    result = {"control": compare(samples, "raw again", "raw"), **ratios(samples), "samples": samples}
    show(result)
    if options.json:
        options.json.write_text(json.dumps({**result, "medians": medians(samples)}), encoding="utf-8")


def ratios(samples: Samples) -> dict[str, object]:
    found: dict[str, object] = {}
    for way in ("actor", "ours"):
        for peer in ("raw", "mlflow"):
            if way in samples and peer in samples:
                found[f"{peer} ÷ {way}"] = compare(samples, peer, way)
    if "actor" in samples:
        found["actor ÷ ours"] = compare(samples, "actor", "ours")
    return {**found, "events per second": {way: round(1 / median(taken)) for way, taken in samples.items()}}


if __name__ == "__main__":
    main()
