"""What a worker's host sends to the driver."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eagleray.execution.worker import WorkerHost
from eagleray.settings import Settings
from eagleray.storage.local import LocalStore

PAYLOAD = {
    "metric": {"name": "accuracy", "mode": "max"},
    "best": {"value": None, "epoch": 0},
    "resume": None,
}


class Channel:
    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)


@pytest.mark.parametrize("rank", [1, 3])
def test_a_warning_of_any_worker_is_sent_in_the_form_that_the_driver_takes(tmp_path: Path, rank: int) -> None:
    channel: Any = Channel()
    host = WorkerHost(PAYLOAD, Settings(tmp_path, str(tmp_path), frozenset()), channel, LocalStore(tmp_path), rank)
    host.warn("optimizer=auto ignores learning_rate=0.02")
    assert channel.sent == [{"type": "warning", "message": "optimizer=auto ignores learning_rate=0.02"}]
