"""What a server costs while nothing happens: memory, and CPU seconds a minute, of each of its processes. Linux only.

    python benchmarks/control_rest.py [--seconds 60] [--streams 1] [--port 32070] [--json FILE]

`eagleray up`, some seconds to settle, then two looks at /proc that lie `--seconds` apart: without a reader, and with
`--streams` clients that follow all events. PSS is a process's own memory and its share of what it shares. The peer is a
replica of a no-op FastAPI app on the same Ray Serve: what is above it is ours. Stated; a core is 60 s a minute, and
anything near one would be polling.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from memory import memory_of, name_of
from ratio import publish
from serve_requests import deploy_noop, server
from stream_events import Stream

SETTLE_S = 20.0
TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
Row = dict[str, Any]


def processes_of(mark: str) -> list[int]:
    wanted = f"EAGLERAY_CLUSTER={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def cpu_s(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def at_rest(mark: str, seconds: float) -> list[Row]:
    """Each process's PSS, USS and CPU seconds a minute, the busiest first."""
    before = {process: cpu_s(process) for process in processes_of(mark)}
    began = time.monotonic()
    time.sleep(seconds)
    minutes = (time.monotonic() - began) / 60
    rows = []
    for process, spent in before.items():
        try:
            row = {**memory_of(process, 0), "cpu_s_per_min": round((cpu_s(process) - spent) / minutes, 2)}
        except (OSError, KeyError):
            continue
        rows.append({**row, "name": f"{name_of(process, 0)} {process}"})
    return sorted(rows, key=lambda row: -float(row["cpu_s_per_min"]))


def summed(rows: list[Row], *words: str) -> Row | None:
    """Of the processes whose name holds one of `words`; all of them where none is given."""
    chosen = [row for row in rows if not words or any(word in row["name"] for word in words)]
    if not chosen:
        return None
    return {key: round(sum(float(row[key]) for row in chosen), 2) for key in ("cpu_s_per_min", "pss", "uss")}


PARTS = {
    "control plane": ("ControlActor",),
    "api replica": ("ServeReplica:eagleray",),
    "no-op replica": ("ServeReplica:noop",),
    "serve itself": ("ServeController", "ProxyActor"),
    "everything, Ray included": (),
}


def parts_of(rows: list[Row]) -> dict[str, Row | None]:
    return {part: summed(rows, *words) for part, words in PARTS.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--port", type=int, default=32070)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        with server(home, options.port, haproxy=False):
            from eagleray_serve.local.state import ServerFolder

            deploy_noop(home)
            state, key = ServerFolder(home).load(), (home / "admin.key").read_text().strip()
            assert state is not None
            time.sleep(SETTLE_S)
            quiet = at_rest(state.mark, options.seconds)
            streams = [Stream(options.port, "/api/v1/events/stream", key) for _ in range(options.streams)]
            followed = at_rest(state.mark, options.seconds)
            for stream in streams:
                stream.close()
    result: dict[str, Any] = {f"at rest, {part}": row for part, row in parts_of(quiet).items()}
    result |= {f"{options.streams} streams, {part}": row for part, row in parts_of(followed).items()}
    publish({**result, "samples": {"at rest": quiet, "followed": followed}}, options.json)


if __name__ == "__main__":
    main()
