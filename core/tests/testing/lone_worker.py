"""A worker of a job in a process of its own, as Ray Train runs it, with Ray's part faked.

`python lone_worker.py JOB` reads the payload and after how many epochs to stop from the JSON file JOB; what comes back
to the driver, what was reported and what was sent is written beside it.
"""

from __future__ import annotations

import json
import pickle
import sys
import threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray
import ray.train

from eagleray.execution import worker


class Channel:
    """The line to a driver that asks to stop once it is told of a checkpoint of the epoch `stop_after`."""

    def __init__(self, stop_after: int | None) -> None:
        self.stop_requested = threading.Event()
        self.sent: list[dict[str, Any]] = []
        self.stop_after = stop_after

    def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    def report(self, report: dict[str, Any]) -> None:
        self.sent.append({"type": "report", **report})
        if report["epoch"] == self.stop_after:
            self.stop_requested.set()

    def close(self) -> None: ...


def main(job: Path) -> None:
    told = json.loads(job.read_text(encoding="utf-8"))
    channel = Channel(told["stop_after"])
    place = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1, get_local_rank=lambda: 0)
    for module, name, fake in (
        (ray, "get_gpu_ids", list),
        (ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "node")),
        (ray.train, "get_context", lambda: place),
        (ray.train, "report", channel.report),
        (worker, "WorkerChannel", lambda address: channel),
        # The tests' own Python is no environment of a plugin.
        (worker, "in_use", nullcontext),
    ):
        setattr(module, name, fake)
    result: dict[str, Any] = {}
    try:
        result["returned"] = worker.training_loop(told["payload"])
    except Exception as error:
        result["raised"] = error
    # As what crosses to the driver does.
    job.with_suffix(".pickle").write_bytes(pickle.dumps({**result, "sent": channel.sent}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
