"""F21 and F22 on the control plane's SQLite: failing writes, killed writers, and a lock that somebody holds.

`apt-get install fiu-utils` brings what F21 needs; without it that test is skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from eagleray.testing.invariants import Answer, History, check

from .real_server import JOBS, SPEC, RealServer, real_server

pytestmark = [pytest.mark.fault, pytest.mark.slow]
PROGRAM = Path(__file__).with_name("failing_writes.py")
KILLS = int(os.environ.get("EAGLERAY_TEST_KILLS", "100"))
LAST_WRITE = int(os.environ.get("EAGLERAY_TEST_WRITES", "200"))
LOCK_S = 30.0


def run(folder: Path, *arguments: object, under: tuple[str, ...] = ()) -> dict[str, Any]:
    # The interpreter itself: a shim would start a shell under the failing calls.
    command = [*under, os.path.realpath(sys.executable), str(PROGRAM), str(folder), *map(str, arguments)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_f22_a_writer_killed_a_hundred_times_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    found = run(tmp_path, "kills", KILLS)
    assert found["lost"] == []
    assert found["acknowledged"] >= KILLS


@pytest.mark.skipif(shutil.which("fiu-run") is None, reason="needs Debian's fiu-utils")
def test_f21_whichever_write_or_sync_fails_what_was_acknowledged_is_there_and_the_next_command_goes_on(
    tmp_path: Path,
) -> None:
    found = run(tmp_path, "errors", 1, LAST_WRITE, under=("fiu-run", "-x"))
    assert (found["lost"], found["unopened"]) == ([], [])
    # Late ones are never reached: four commands do not write so often.
    assert found["failed"] >= min(LAST_WRITE, 40), "the faults were there"
    assert found["refused"] <= found["failed"] < found["acknowledged"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RealServer]:
    with real_server(tmp_path) as found:
        yield found


def test_f22_while_another_process_holds_the_lock_writes_are_told_when_to_come_back_and_reads_go_on(
    server: RealServer,
) -> None:
    history = History()
    made = server.start_job()
    history.submitted(made)
    holder = sqlite3.connect(server.home / "control" / "eagleray.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    began, refused = time.monotonic(), 0
    while time.monotonic() < began + LOCK_S:
        answer = ask(server, history, "POST", JOBS, json={**SPEC, "start": True})
        assert answer.status_code == 503, answer.text
        assert answer.json()["code"] == "database-busy"
        assert int(answer.headers["retry-after"]) >= 1
        refused += 1
        assert ask(server, history, "GET", f"{JOBS}/{made}").json()["phase"] == "running"
    assert refused >= 2
    holder.execute("ROLLBACK")
    holder.close()
    answer = ask(server, history, "POST", JOBS, json=SPEC)
    assert answer.status_code == 201, answer.text
    jobs = ask(server, history, "GET", JOBS).json()["items"]
    assert [job["id"] for job in jobs] == [answer.json()["id"], made], "what was refused made no job"
    for epoch in (1, 2, 3):
        server.say(made, {"type": "epoch", "epoch": epoch, "metrics": {"loss": 1.0}, "best": {}})
    server.finish(made)
    with sqlite3.connect(server.home / "control" / "eagleray.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    check(history, server.world)


def ask(server: RealServer, history: History, method: str, path: str, **options: Any) -> httpx.Response:
    began = time.monotonic()
    answer = httpx.request(method, f"{server.url}{path}", headers=server.headers, timeout=60, **options)
    code = answer.json().get("code", "") if answer.is_error else ""
    request_id = answer.headers.get("x-request-id", "")
    history.answered(
        Answer(f"{method} {path}", answer.status_code, time.monotonic() - began, 40.0, code, request_id, began)
    )
    return answer
