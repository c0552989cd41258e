"""The app over the real control plane, served by uvicorn on a port; the cluster below it is simulated."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from eagleray.control.commands import SYSTEM
from eagleray.control.database.opening import open_database, open_read_only
from eagleray.control.plane import ControlPlane
from eagleray.control.queries import Queries
from eagleray.control.settings import ControlSettings
from eagleray.control.specs import checking
from eagleray.plugins.host import discover
from eagleray.settings import Settings
from eagleray.storage.local import LocalStore
from eagleray.testing.cluster import SimulatedExecutor
from eagleray.testing.invariants import World
from eagleray_serve.app import make_app
from eagleray_serve.settings import HttpSettings

JOBS = "/api/v1/training/jobs"
SPEC = {"framework": "echo", "model_name": "echo-linear", "dataset_path": "/data/pictures", "epochs": 3}
# So that what is measured is the load, not the limits.
OPEN = {"key_rate_per_s": 100_000, "address_rate_per_s": 100_000}


@dataclass
class RealServer:
    """A running one; `say` speaks as the driver of a job's newest attempt."""

    home: Path
    port: int
    key: str
    plane: ControlPlane
    queries: Queries
    executor: SimulatedExecutor
    app: FastAPI
    world: World
    said: dict[int, int] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        return {"X-API-Key": self.key}

    def start_job(self, **changes: Any) -> int:
        """A job whose first attempt runs."""
        job = int(self.plane.create_job(SYSTEM, {**SPEC, **changes}, start=True)["id"])
        self.plane.dispatcher.tick()
        self.say(job, {"type": "attempt", "attempt": 1, "resumed_from_epoch": None})
        self.say(job, {"type": "phase", "phase": "running", "message": ""})
        return job

    def say(self, job: int, *events: dict[str, Any]) -> None:
        first = self.said.get(job, 0) + 1
        self.plane.record(job, 1, [{"seq": number, **event} for number, event in enumerate(events, first)])
        self.said[job] = first + len(events) - 1

    def finish(self, job: int) -> None:
        """Its driver's last word, and Ray's."""
        self.say(job, {"type": "finished", "outcome": "completed", "failure": None})
        self.executor.ended(f"{job}-1")
        self.plane.dispatcher.tick()

    @property
    def streams(self) -> int:
        """Readers that the server has now."""
        return int(self.app.state.parts.feed.listeners)


@contextmanager
def real_server(folder: Path, **http: Any) -> Iterator[RealServer]:
    settings = Settings(home=folder / "home", storage=str(folder / "storage"), blocked_plugins=frozenset())
    catalogue, store = discover(settings), LocalStore(folder / "storage")
    engine = open_database(None, settings.home)
    control = ControlSettings(poll_s=0.0, grace_s=0.0, max_drivers=4)
    executor = SimulatedExecutor(cpus=1000.0)
    plane = ControlPlane(engine, executor, store, checking(lambda: catalogue), settings=control)
    plane.start(owner_timeout_s=1, dispatch=False)
    reading = open_read_only(None, settings.home)
    queries = Queries(reading)
    app = make_app(plane, queries, catalogue, store, settings, HttpSettings(**{**OPEN, **http}))
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        key = str(plane.create_key(SYSTEM, name="root", scopes=["admin"], projects=None)["key"])
        port = listener.getsockname()[1]
        yield RealServer(settings.home, port, key, plane, queries, executor, app, World(reading, store))
    finally:
        server.should_exit = True
        plane.close()  # wakes what waits for news
        thread.join(15)
        listener.close()
        engine.dispose()
        reading.dispose()
