"""`eagleray up`, a job over HTTP, things killed under it, and `eagleray down`: as a new user would."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from .conftest import EAGLERAY, Home
from .running_server import DRIVER, JOBS, Running, free_port

pytestmark = pytest.mark.cluster


@pytest.fixture
def server(home: Home) -> Iterator[Running]:
    found = Running(home, free_port())
    yield found
    subprocess.run([EAGLERAY, "down"], env=home.environ, capture_output=True, timeout=200)


def test_a_new_users_first_day(server: Running, pictures: Path) -> None:
    first = server.up()
    assert first["started"]
    assert first["key"] == server.key
    assert (server.home.path / "admin.key").stat().st_mode & 0o777 == 0o600
    again = server.up()
    assert (again["started"], "key" in again) == (False, False)
    assert server.cli("status")["status"] == "ok"
    assert httpx.get(f"{server.url}{JOBS}", timeout=30).status_code == 401
    assert httpx.get(f"{first['dashboard']}/api/jobs/", timeout=30).status_code == 401, "Ray's own door is shut"
    listening_is_local(server)

    job = server.create(pictures, epochs=3, advanced_config={"noise_lines": 2})
    with httpx.stream(
        "GET",
        f"{server.url}{JOBS}/{job}/events/stream",
        headers={"X-API-Key": server.key},
        timeout=300,
    ) as answer:
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
    assert [event["data"]["epoch"] for event in events if event["type"] == "epoch"] == [1, 2, 3]
    assert events[-1]["type"] == "phase"
    assert server.cli("jobs", "show", str(job))["status"] == "completed"
    assert len(server.get(f"{JOBS}/{job}/checkpoints/best.pt").content) > 100
    lines = server.get(f"{JOBS}/{job}/logs", params={"tail": 2}).json()["items"]
    assert [line["text"] for line in lines] == ["echo epoch 3 line 1", "echo epoch 3 line 2"]

    # A driver is killed: the job goes on behind its last checkpoint.
    job = server.create(pictures, epochs=6, advanced_config={"delay_s": 0.3})
    server.until(job, lambda found: found["epochs_done"] >= 2)
    assert server.kill(DRIVER)
    done = server.ended(job)
    assert (done["status"], done["epochs_done"], done["attempt_count"]) == ("completed", 6, 2), done
    assert server.attempts(job)[1]["resumed_from_epoch"] >= 1

    # The API's replica is killed: what was asked before is still known, and the next answers come.
    assert server.kill(b"ServeReplica")
    server.until(job, lambda found: found["status"] == "completed")

    # Down, while a job runs: nothing is left, and the next `up` goes on with it.
    job = server.create(pictures, epochs=5, advanced_config={"delay_s": 0.3})
    server.until(job, lambda found: found["epochs_done"] >= 2)
    temp_dir = Path(server.state["temp_dir"])
    mark = server.state["mark"]
    assert server.cli("down")["stopped"]
    assert not temp_dir.exists()
    assert not [pid for pid in Path("/proc").iterdir() if pid.name.isdigit() and carries(pid, mark)]
    server.up()
    done = server.ended(job)
    assert (done["status"], done["epochs_done"]) == ("completed", 5), done


def carries(process: Path, mark: str) -> bool:
    try:
        return f"EAGLERAY_CLUSTER={mark}".encode() in (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def listening_is_local(server: Running) -> None:
    """No process of the server listens on an address that other machines reach."""
    inodes = set()
    for pid in server.processes(b""):
        for descriptor in (Path("/proc") / str(pid) / "fd").iterdir():
            try:
                target = str(descriptor.readlink())
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    opened = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        address, port = fields[1].split(":")
        if fields[3] == "0A" and fields[9] in inodes and address != "0100007F":
            opened.append((address, int(port, 16)))
    assert not opened, f"reachable from elsewhere: {opened}"
