"""Memory of one job: its driver, its worker and every other process that it starts. Linux only.

    .venv/bin/python benchmarks/memory.py [--on local running] [--environments DIR] [--port 27780] [--json FILE]

PSS is a process's own memory and its share of what it shares; the sum over processes is what the job takes. USS is what
the end of the process would give back. MiB, once, in the second epoch of an echo job, so that the figures are those of
the host and not of a framework.

    local      all processes, with the Ray that the job starts
    running    those that were not there before the job, on a Ray head of its own
    bare       the same for `python bare.py`, Ray Train as it is: the peer of `running`
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from runs import EAGLERAY, Home, echo, events, private_cluster, seconds_until, started, temporary_home

BARE = str(Path(__file__).with_name("bare.py"))
Row = dict[str, Any]


def name_of(process: int, driver: int) -> str:
    words = [word for word in (Path("/proc") / str(process) / "cmdline").read_bytes().decode().split("\0") if word]
    if process == driver:
        return "driver"
    if not words:
        return "?"
    if words[0].startswith("ray::"):
        return words[0]
    scripts = [Path(word).name for word in words if word.endswith(".py")]
    module = words[words.index("-m") + 1] if "-m" in words else ""
    return scripts[0] if scripts else module or Path(words[0]).name


def memory_of(process: int, driver: int) -> Row:
    """MiB of PSS and USS."""
    fields = {}
    for line in (Path("/proc") / str(process) / "smaps_rollup").read_text().splitlines()[1:]:
        key, value, *_ = line.split()
        fields[key.rstrip(":")] = int(value) / 1024
    uss = fields["Private_Clean"] + fields["Private_Dirty"]
    return {"name": name_of(process, driver), "pss": round(fields["Pss"], 1), "uss": round(uss, 1)}


def sample(home: Home, driver: int, before: set[int]) -> list[Row]:
    rows = []
    for process in {*home.processes(), driver} - before:
        try:
            rows.append(memory_of(process, driver))
        except (OSError, KeyError):
            continue
    return sorted(rows, key=lambda row: -float(row["pss"]))


def of_job(home: Home, environ: dict[str, str]) -> list[Row]:
    before, rows = set(home.processes()), list[Row]()
    with started([EAGLERAY, *echo(home, 3, delay_s=0.7), "--json"], environ) as process:
        for event in events(process):
            if event.get("event") == "progress" and event["epoch"] == 2 and not rows:
                rows = sample(home, process.pid, before)
    return rows


def of_bare(home: Home, environ: dict[str, str]) -> list[Row]:
    before, mark = set(home.processes()), home.path / "mark"
    with started([sys.executable, BARE, str(mark), "4"], environ) as process:
        seconds_until(mark.exists, time.perf_counter())
        time.sleep(2)
        return sample(home, process.pid, before)


def table(title: str, rows: list[Row]) -> None:
    print(f"\n{title:48}{'PSS':>8}{'USS':>8}")
    for row in rows:
        print(f"  {row['name'][:46]:46}{row['pss']:8.0f}{row['uss']:8.0f}")
    print(
        f"  {f'{len(rows)} processes':46}{sum(row['pss'] for row in rows):8.0f}{sum(row['uss'] for row in rows):8.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--on", nargs="+", choices=("local", "running"), default=["local", "running"])
    parser.add_argument("--environments", help="a folder of built environments; default: built first")
    parser.add_argument("--port", type=int, default=27780, help="first of some 600 free ports")
    parser.add_argument("--json", type=Path, help="keep the figures here")
    options = parser.parse_args()
    results: dict[str, list[Row]] = {}
    with temporary_home(options.environments) as home:
        # Built before, so that a builder is not taken for a part of the job.
        subprocess.run([EAGLERAY, *echo(home, 1)], env=home.environ, check=True, stdout=subprocess.DEVNULL)
        if "local" in options.on:
            results["local"] = of_job(home, home.environ)
        if "running" in options.on:
            with private_cluster(home, options.port) as environ:
                results["running"] = of_job(home, environ)
                results["bare"] = of_bare(home, environ)
    for place, rows in results.items():
        table(place, rows)
    if options.json:
        options.json.write_text(json.dumps(results))


if __name__ == "__main__":
    main()
