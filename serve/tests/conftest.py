"""The app on a control plane that runs nothing, with a key for each kind of caller."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from eagleray.control.commands import SYSTEM
from eagleray.plugins.host import Catalogue, discover
from eagleray.settings import Settings
from eagleray.storage.local import LocalStore
from eagleray.testing.data import write_detection_dataset
from eagleray_serve.app import make_app
from eagleray_serve.settings import HttpSettings

from .fake import FakePlane

SPEC = {
    "framework": "echo",
    "model_name": "echo-linear",
    "dataset_path": "/data/pictures",
    "epochs": 3,
    "project_id": "orchard",
}
Serve = Callable[..., str]
OPEN = HttpSettings(key_rate_per_s=100_000, address_rate_per_s=100_000, failed_logins_per_minute=100_000, poll_s=0.02)


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    return discover(Settings(home=Path("/nonexistent"), storage="", blocked_plugins=frozenset()))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", storage=str(tmp_path / "storage"), blocked_plugins=frozenset())


@pytest.fixture
def plane(settings: Settings) -> Iterator[FakePlane]:
    found = FakePlane(settings.home)
    for name in ("orchard", "mine"):
        found.create_project(SYSTEM, name)
    yield found
    found.closed = True
    found.engine.dispose()


@pytest.fixture
def store(settings: Settings) -> LocalStore:
    return LocalStore(Path(settings.storage))


@pytest.fixture
def build(plane: FakePlane, catalogue: Catalogue, store: LocalStore, settings: Settings) -> Callable[..., FastAPI]:
    """The app; with other HTTP settings where some are given."""

    def app(**changes: Any) -> FastAPI:
        http = OPEN.model_copy(update=changes)
        return make_app(plane, plane.queries, catalogue, store, settings, http)

    return app


@pytest.fixture
def app(build: Callable[..., FastAPI]) -> FastAPI:
    return build()


def connect(app: FastAPI, key: str | None = None) -> TestClient:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return TestClient(app, "http://localhost", headers=headers, raise_server_exceptions=False)


@pytest.fixture
def keys(plane: FakePlane) -> dict[str, str]:
    revoked = plane.create_key(SYSTEM, name="revoked", scopes=["admin"], projects=None)
    plane.revoke_key(SYSTEM, revoked["id"])
    return {
        "admin": plane.key("root", ["admin"]),
        "writer": plane.key("anna", ["read", "write"], ["orchard"]),
        "reader": plane.key("robin", ["read"], ["orchard"]),
        "stranger": plane.key("eve", ["read", "write"], ["mine"]),
        "revoked": str(revoked["key"]),
        "expired": plane.key("late", ["admin"], expires_at="2020-01-01T00:00:00+00:00"),
    }


@pytest.fixture
def admin(app: FastAPI, keys: dict[str, str]) -> Iterator[TestClient]:
    with connect(app, keys["admin"]) as client:
        yield client


@pytest.fixture
def writer(app: FastAPI, keys: dict[str, str]) -> Iterator[TestClient]:
    with connect(app, keys["writer"]) as client:
        yield client


@pytest.fixture
def serve(build: Callable[..., FastAPI], plane: FakePlane) -> Iterator[Serve]:
    """Start the app on a free port of this machine; the address."""
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(**changes: Any) -> str:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(build(**changes), log_level="error", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        running.append((server, thread))
        while not server.started:
            time.sleep(0.01)
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield start
    plane.closed = True  # a server ends after what waits for news
    for server, thread in running:
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small dataset of boxes."""
    return write_detection_dataset(tmp_path / "coins")
