"""A lone worker's side of a job: what it is told, and its host, without Ray and without a driver."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eagleray.execution.worker import WorkerHost
from eagleray.settings import Settings
from eagleray.storage.local import LocalStore


class Line:
    """A driver that listens and says nothing."""

    def __init__(self) -> None:
        self.stop_requested = threading.Event()

    def send(self, message: dict[str, Any]) -> None: ...


@pytest.fixture
def told() -> Callable[..., dict[str, Any]]:
    """What a worker of job 7 is told of it, with changes."""

    def make(**changes: Any) -> dict[str, Any]:
        return {
            "job_id": 7,
            "attempt": 1,
            "prefix": "checkpoints/test-jobs/job_7",
            "portable_file": "model.pt",
            "metric": {"name": "accuracy", "mode": "max"},
            "best": {"value": None, "epoch": 0},
            "resume": None,
            "epochs": 9,
            "checkpoint_every": 4,
            **changes,
        }

    return make


@pytest.fixture
def make_host(
    told: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., WorkerHost]:
    """Rank 0's, with changes of what it is told. It keeps checkpoints in `tmp_path / "store"`; call its `finish`."""
    monkeypatch.setattr("ray.train.report", lambda report: None)

    def make(**changes: Any) -> WorkerHost:
        line: Any = Line()
        settings = Settings(tmp_path / "home", "", frozenset(), upload_grace_s=5)
        return WorkerHost(told(**changes), settings, line, LocalStore(tmp_path / "store"), 0)

    return make
