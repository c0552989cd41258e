"""`eagleray up`, a job over HTTP, things killed under it, and `eagleray down`: as a new user would."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from .conftest import EAGLERAY, Home

pytestmark = pytest.mark.cluster
SPEC = {"framework": "echo", "model_name": "echo-linear", "batch_size": 4, "pretrained": False, "start": True}


def free_port() -> int:
    for port in range(32100, 32900):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")


@dataclass
class Running:
    """A server that `eagleray up` has started."""

    home: Home
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def key(self) -> str:
        return (self.home.path / "admin.key").read_text().strip()

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.home.path / "server" / "state.json").read_text())
        return found

    def cli(self, *arguments: str) -> Any:
        result = subprocess.run(
            [EAGLERAY, *arguments, "--json"], env=self.home.environ, text=True, capture_output=True, timeout=400
        )
        assert result.returncode == 0, (arguments, result.stdout, result.stderr, self.log())
        return json.loads(result.stdout)

    def up(self) -> Any:
        return self.cli("up", "--port", str(self.port), "--num-cpus", "3")

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", headers={"X-API-Key": self.key}, timeout=60, **options)

    def create(self, pictures: Path, **changes: Any) -> int:
        body = {**SPEC, "dataset_path": str(pictures), **changes}
        answer = httpx.post(f"{self.url}/api/v1/training/jobs", json=body, headers={"X-API-Key": self.key}, timeout=60)
        assert answer.status_code == 201, answer.text
        return int(answer.json()["id"])

    def until(self, job_id: int, wanted: Callable[[dict[str, Any]], bool], timeout_s: float = 240) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                job: dict[str, Any] = self.get(f"/api/v1/training/jobs/{job_id}").json()
                if wanted(job):
                    return job
            except httpx.TransportError:
                job = {}
            assert time.monotonic() < deadline, (job, self.log())
            time.sleep(0.3)

    def log(self) -> str:
        path = self.home.path / "server" / "ray.log"
        return path.read_text(errors="replace")[-2000:] if path.exists() else ""

    def processes(self, text: bytes) -> list[int]:
        """Processes of this server whose command line holds `text`."""
        mark = f"EAGLERAY_CLUSTER={self.state['mark']}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            try:
                ours = entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0")
                if ours and text in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
        return found


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
    assert httpx.get(f"{server.url}/api/v1/training/jobs", timeout=30).status_code == 401
    assert httpx.get(f"{first['dashboard']}/api/jobs/", timeout=30).status_code == 401, "Ray's own door is shut"
    listening_is_local(server)

    job = server.create(pictures, epochs=3, advanced_config={"noise_lines": 2})
    with httpx.stream(
        "GET",
        f"{server.url}/api/v1/training/jobs/{job}/events/stream",
        headers={"X-API-Key": server.key},
        timeout=300,
    ) as answer:
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
    assert [event["data"]["epoch"] for event in events if event["type"] == "epoch"] == [1, 2, 3]
    assert events[-1]["type"] == "phase"
    assert server.cli("jobs", "show", str(job))["status"] == "completed"
    assert len(server.get(f"/api/v1/training/jobs/{job}/checkpoints/best.pt").content) > 100
    lines = server.get(f"/api/v1/training/jobs/{job}/logs", params={"tail": 2}).json()["items"]
    assert [line["text"] for line in lines] == ["echo epoch 3 line 1", "echo epoch 3 line 2"]

    # A driver is killed: the job goes on behind its last checkpoint.
    job = server.create(pictures, epochs=6, advanced_config={"delay_s": 0.3})
    server.until(job, lambda found: found["epochs_done"] >= 2)
    (driver, *_) = server.processes(b"eagleray.control.attempt")
    os.kill(driver, signal.SIGKILL)
    done = server.until(job, lambda found: found["status"] in ("completed", "failed"))
    assert (done["status"], done["epochs_done"], done["attempt_count"]) == ("completed", 6, 2), done
    attempts = server.get(f"/api/v1/training/jobs/{job}/attempts").json()["items"]
    assert attempts[1]["resumed_from_epoch"] >= 1

    # The API's replica is killed: what was asked before is still known, and the next answers come.
    for pid in server.processes(b"ServeReplica"):
        os.kill(pid, signal.SIGKILL)
    server.until(job, lambda found: found.get("status") == "completed")

    # Down, while a job runs: nothing is left, and the next `up` goes on with it.
    job = server.create(pictures, epochs=5, advanced_config={"delay_s": 0.3})
    server.until(job, lambda found: found["epochs_done"] >= 2)
    temp_dir = Path(server.state["temp_dir"])
    mark = server.state["mark"]
    assert server.cli("down")["stopped"]
    assert not temp_dir.exists()
    assert not [pid for pid in Path("/proc").iterdir() if pid.name.isdigit() and carries(pid, mark)]
    server.up()
    done = server.until(job, lambda found: found.get("status") in ("completed", "failed"))
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
