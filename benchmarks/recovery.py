"""P10: kill -9 of the worker → first resumed step, ÷ the cold start of the same job. Target: ≤ 1.1.

    .venv/bin/python benchmarks/recovery.py [--rounds 5] [--on local running] [--environments DIR] [--port 27080]
                                            [--json FILE]

A job of echo is started (command → first step: cold), its worker is killed after the first checkpoint (kill → first
step of attempt 2: resumed), and it trains to its end. Both figures come from one job, so their order cannot be turned;
the control is the cold start of one job ÷ that of the next. Steps are seen as the driver's `progress` events.

On a local cluster the cold start includes that of Ray, and recovery does not.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from ratio import Samples, compare, interval, medians, show, verdict
from runs import EAGLERAY, Home, echo, events, private_cluster, started, temporary_home

TARGET = 1.1


def worker_pid(home: Home, job_id: int, attempt: int) -> int:
    """The process whose standard output is the log file of rank 0."""
    log = home.path / "logs" / f"job-{job_id}" / f"attempt-{attempt}-worker-0.log"
    for process in home.processes():
        try:
            if (Path("/proc") / str(process) / "fd" / "1").readlink() == log:
                return process
        except OSError:
            continue
    raise SystemExit(f"no process writes {log}")


def one_job(home: Home, environ: dict[str, str]) -> tuple[float, float]:
    """Seconds from the command to the first step, and from the kill to the first step after it."""
    cold = killed = resumed = 0.0
    job_id = attempt = 0
    began = time.perf_counter()
    with started([EAGLERAY, *echo(home, 6, delay_s=0.3), "--json"], environ) as process:
        for event in events(process):
            kind = event.get("event")
            if kind == "job":
                job_id = event["job_id"]
            elif kind == "attempt":
                attempt = event["attempt"]
            elif kind == "progress" and not cold:
                cold = event["at"] - began
            elif kind == "checkpoint" and not killed:
                killed = time.perf_counter()
                os.kill(worker_pid(home, job_id, attempt), signal.SIGKILL)
            elif kind == "progress" and attempt == 2 and not resumed:
                resumed = event["at"] - killed
    return cold, resumed


def measure(home: Home, environ: dict[str, str], rounds: int) -> dict[str, Any]:
    one_job(home, environ)
    samples: Samples = {"cold": [], "resumed": []}
    for number in range(rounds):
        cold, resumed = one_job(home, environ)
        samples["cold"].append(cold)
        samples["resumed"].append(resumed)
        print(f"round {number + 1}/{rounds} cold {cold:.2f} s, resumed {resumed:.2f} s", file=sys.stderr, flush=True)
    colds = samples["cold"]
    control = interval([after / before for before, after in itertools.pairwise(colds)])
    ratio = compare(samples, "resumed", "cold")
    result = {"control": control, "resumed/cold": [*ratio, verdict(ratio, control, TARGET)]}
    return {**result, "seconds": medians(samples), "rounds": rounds, "samples": samples}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--on", nargs="+", choices=("local", "running"), default=["local", "running"])
    parser.add_argument("--environments", help="a folder of built environments; default: built first")
    parser.add_argument("--port", type=int, default=27080, help="first of some 600 free ports")
    parser.add_argument("--json", type=Path, help="keep the raw samples here")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error("--rounds is at least 2: the control compares one job with the next")
    results: dict[str, Any] = {}
    with temporary_home(options.environments) as home:
        if "local" in options.on:
            results["local"] = measure(home, home.environ, options.rounds)
        if "running" in options.on:
            with private_cluster(home, options.port) as environ:
                results["running"] = measure(home, environ, options.rounds)
    for place, result in results.items():
        print(place, file=sys.stderr)
        show(result)
    if options.json:
        options.json.write_text(json.dumps(results))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
