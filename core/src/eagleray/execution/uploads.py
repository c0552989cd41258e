"""Checkpoints on their way to the store, beside training; none of it can end a run."""

from __future__ import annotations

import queue
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eagleray.settings import load_settings
from eagleray.storage.checkpoints import Checkpoints

RETRY_AFTER_S = (0.5, 2.0, 8.0)
# Training waits once this many checkpoints are on their way, so that the local disk stays bounded.
MAX_PENDING = 2


@dataclass(frozen=True)
class PendingCheckpoint:
    """A checkpoint in a folder of the worker's own; `recent` holds the metrics of the last epochs, by epoch."""

    folder: Path
    epoch: int
    metrics: dict[str, float]
    is_best: bool
    best_value: float | None
    best_epoch: int
    recent: dict[int, dict[str, float]]


class CheckpointWriter:
    """One thread that commits checkpoints in order. A failure is retried, then said and kept aside."""

    def __init__(
        self, checkpoints: Checkpoints, payload: dict[str, Any], send: Callable[[dict[str, Any]], None]
    ) -> None:
        self._checkpoints = checkpoints
        self._payload = payload
        self._send = send
        self._queue: queue.Queue[PendingCheckpoint | None] = queue.Queue(MAX_PENDING)
        self._thread = threading.Thread(target=self._run, name="eagleray-checkpoints", daemon=True)
        self._thread.start()
        self.warnings: list[str] = []

    def put(self, checkpoint: PendingCheckpoint) -> None:
        self._queue.put(checkpoint)

    def drain(self) -> None:
        self._queue.join()

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join()

    def guard(self, what: str, action: Callable[[], Any]) -> bool:
        """Run `action`, retrying; a last failure becomes a warning. Returns whether it worked."""
        for wait_s in (*RETRY_AFTER_S, None):
            try:
                action()
                return True
            except Exception as error:
                if wait_s is None:
                    self._warn(f"{what} could not be stored: {error}")
                    return False
                time.sleep(wait_s)
        return False

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            try:
                self._commit(item)
            finally:
                self._queue.task_done()
        self._queue.task_done()

    def _commit(self, item: PendingCheckpoint) -> None:
        stored = self.guard(
            f"The checkpoint of epoch {item.epoch}",
            lambda: self._checkpoints.commit(
                item.folder,
                job_id=self._payload["job_id"],
                attempt=self._payload["attempt"],
                epoch=item.epoch,
                metrics=item.metrics,
                portable_file=self._payload["portable_file"],
                is_best=item.is_best,
                best_value=item.best_value,
                best_epoch=item.best_epoch,
                recent=item.recent,
            ),
        )
        if stored:
            shutil.rmtree(item.folder, ignore_errors=True)
            self._send({"type": "checkpoint", "epoch": item.epoch, "best": item.is_best})
        else:
            self._keep_aside(item)

    def _keep_aside(self, item: PendingCheckpoint) -> None:
        """Only the newest is kept, so an outage costs a bounded amount of disk."""
        pending = load_settings().home / "pending" / f"job-{self._payload['job_id']}"
        shutil.rmtree(pending, ignore_errors=True)
        pending.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.move(item.folder, pending)
        except OSError as error:
            self._warn(f"The checkpoint of epoch {item.epoch} could not be kept aside either: {error}")
            return
        self._warn(f"The checkpoint of epoch {item.epoch} is kept in {pending}")

    def _warn(self, message: str) -> None:
        self.warnings.append(message)
        self._send({"type": "warning", "message": message})
