"""A server that `eagleray up` has started, and a client that keeps a history of what it did and saw."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from eagleray.control.database.opening import open_read_only
from eagleray.storage.local import LocalStore
from eagleray.testing.invariants import Answer, History, World, check

from .conftest import EAGLERAY, Home

JOBS = "/api/v1/training/jobs"
SPEC = {"framework": "echo", "model_name": "echo-linear", "batch_size": 4, "pretrained": False, "start": True}
ENDS = ("completed", "failed", "cancelled")
# The server itself gives up after 60 s (`request_timeout_s`).
LIMIT_S = 65.0
DRIVER, WORKER = b"eagleray.control.attempt", b"RayTrainWorker"


def free_port(first: int = 32100) -> int:
    for port in range(first, first + 800):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")


@dataclass
class Running:
    """A server of `home`; what is asked of it by `request` is in `history`.

    `mark` is in the environment of all its processes. `eagleray up` makes one: only who starts it otherwise gives it.
    """

    home: Home
    port: int
    cpus: int = 3
    mark: str = ""
    history: History = field(default_factory=History)

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
        return self.cli("up", "--port", str(self.port), "--num-cpus", str(self.cpus))

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", headers={"X-API-Key": self.key}, timeout=60, **options)

    def request(self, method: str, path: str, *, port: int | None = None, **options: Any) -> httpx.Response:
        """As a client would, and remembered. Raises httpx.TransportError where no answer came."""
        headers = {"X-API-Key": self.key, **options.pop("headers", {})}
        what, began = f"{method} {path}", time.monotonic()
        try:
            url = f"http://127.0.0.1:{port or self.port}{path}"
            answer = httpx.request(method, url, headers=headers, timeout=LIMIT_S, **options)
        except httpx.TransportError:
            # What a proxy of the test's own cut off is no fault of the server.
            if port is None:
                self.history.answered(Answer(what, 0, time.monotonic() - began, LIMIT_S, at=began))
            raise
        seconds, code = time.monotonic() - began, ""
        if answer.is_error:
            with suppress(ValueError):
                code = str(answer.json().get("code", ""))
        request_id = answer.headers.get("x-request-id", "")
        self.history.answered(Answer(what, answer.status_code, seconds, LIMIT_S, code, request_id, began))
        return answer

    def create(self, pictures: Path, *, key: str = "", port: int | None = None, **changes: Any) -> int:
        body = {**SPEC, "dataset_path": str(pictures), **changes}
        headers = {"Idempotency-Key": key} if key else {}
        answer = self.request("POST", JOBS, json=body, headers=headers, port=port)
        assert answer.status_code == 201, answer.text
        job_id = int(answer.json()["id"])
        self.history.submitted(job_id, key)
        return job_id

    def until(self, job_id: int, wanted: Callable[[dict[str, Any]], bool], timeout_s: float = 240) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while True:
            job: dict[str, Any] = {}
            with suppress(httpx.TransportError):
                answer = self.request("GET", f"{JOBS}/{job_id}")
                job = answer.json() if answer.status_code == 200 else {}
            if job.get("status") in ENDS:
                self.history.saw_end(job_id, job["status"])
            if job and wanted(job):
                return job
            assert time.monotonic() < deadline, (job, self.attempts(job_id), self.log())
            time.sleep(0.3)

    def ended(self, job_id: int, timeout_s: float = 240) -> dict[str, Any]:
        job = self.until(job_id, lambda found: found["status"] in ENDS, timeout_s)
        self.look(job_id)
        return job

    def attempts(self, job_id: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get(f"{JOBS}/{job_id}/attempts").json().get("items", [])
        return found

    def look(self, job_id: int) -> None:
        """Read figures and lines, which must never be gone afterwards."""
        for point in self.request("GET", f"{JOBS}/{job_id}/metrics").json()["items"]:
            self.history.saw_metric(job_id, point["key"], point["epoch"])
        for line in self.request("GET", f"{JOBS}/{job_id}/logs", params={"tail": 100}).json()["items"]:
            self.history.saw_line(job_id, int(line["id"]), line["text"])

    def check(self, patience_s: float = 90.0) -> None:
        """The invariants. All jobs have ended; what still holds something of them has `patience_s` to let it go."""
        engine = open_read_only(None, self.home.path)
        try:
            world = World(engine, LocalStore(self.home.path / "storage"), self._left)
            check(self.history, world, patience_s=patience_s)
        finally:
            engine.dispose()

    def _left(self) -> list[str]:
        return [f"{text.decode()} {pid}" for text in (DRIVER, WORKER) for pid in self.processes(text)]

    def log(self) -> str:
        path = self.home.path / "server" / "ray.log"
        return path.read_text(errors="replace")[-2000:] if path.exists() else ""

    def processes(self, text: bytes) -> list[int]:
        """Processes of this server whose command line holds `text`."""
        mark = f"EAGLERAY_CLUSTER={self.mark or self.state['mark']}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            try:
                ours = entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0")
                if ours and text in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def kill(self, text: bytes, number: signal.Signals = signal.SIGKILL) -> list[int]:
        """Send a signal to every process of this server whose command line holds `text`; those that got it."""
        reached = []
        for pid in self.processes(text):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
                reached.append(pid)
        self.history.mark(f"{number.name} to {text.decode() or 'everything'} {reached}")
        return reached

    def lose_head(self, *, with_disk: bool) -> None:
        """kill -9 of all that `up` started; `with_disk`: and Ray's session folder is gone. Then `up` again."""
        began, temp_dir = time.monotonic(), Path(self.state["temp_dir"])
        self.kill(b"")
        if with_disk:
            shutil.rmtree(temp_dir, ignore_errors=True)
        self.up()
        self.history.mark("up again")
        self.history.outage(began, time.monotonic())


@contextmanager
def server_of(home: Home, cpus: int = 3) -> Iterator[Running]:
    """A server that is up, and down at the end."""
    found = Running(home, free_port(), cpus)
    try:
        found.up()
        yield found
    finally:
        subprocess.run([EAGLERAY, "down"], env=home.environ, capture_output=True, timeout=200)


def home_at(folder: Path, environments: Path, code: Path, **environ: str) -> Home:
    """A home for a whole module's server, whose processes find what `code` holds."""
    path = folder / "home"
    path.mkdir()
    (path / "envs").symlink_to(environments)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "EAGLERAY_"))}
    python_path = os.pathsep.join(filter(None, [str(code), kept.get("PYTHONPATH", "")]))
    return Home(path, {**kept, "EAGLERAY_HOME": str(path), "NO_COLOR": "1", "PYTHONPATH": python_path, **environ})
