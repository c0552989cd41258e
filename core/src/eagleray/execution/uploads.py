"""Checkpoints and files on their way to the store, beside training; none of it can end a run."""

from __future__ import annotations

import errno
import random
import shutil
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from eagleray.contract.errors import CheckpointError, WeightsError
from eagleray.settings import Settings
from eagleray.storage.cache import NodeCache
from eagleray.storage.disk import DiskFullError
from eagleray.storage.pending import Outbox, PendingItem, finish_pending, superseded
from eagleray.storage.store import Store
from eagleray.storage.sweep import sweep_daily

# The n-th try after a failure waits 0 … min(cap, base · 2ⁿ) seconds.
RETRY_BASE_S, RETRY_CAP_S = 1.0, 30.0
# Beside what is being sent, this many checkpoints wait: the newest and the newest best. Older ones are replaced.
MAX_WAITING = 2
# With less room than this a failed save is taken for a full disk, whatever the framework made of it.
FULL_BYTES = 16 << 20


class Uploads:
    """Everything is laid into the node's outbox, and one thread sends it in order for as long as that takes.

    Training never waits for the store: while it is away, checkpoints replace each other in the outbox, so an outage
    costs a bounded amount of disk. At the job's end the store gets `upload_grace_s` more; what it has not taken by then
    stays in the outbox and is said.
    """

    def __init__(
        self, store: Store, settings: Settings, payload: dict[str, Any], send: Callable[[dict[str, Any]], None]
    ) -> None:
        self._store = store
        self._settings = settings
        self._portable_file = payload["portable_file"]
        self._send = send
        self._outbox = Outbox(
            settings.pending, store.location, payload["job_id"], payload["attempt"], payload["prefix"]
        )
        self._waiting: list[PendingItem] = []
        self._changed = threading.Condition()
        self._closing_at: float | None = None
        self._failing_since: float | None = None
        self.warnings: list[str] = []
        self._thread = threading.Thread(target=self._run, name="eagleray-uploads", daemon=True)
        self._thread.start()

    def checkpoint(self, save: Callable[[Path], object], epoch: int, is_best: bool, facts: dict[str, Any]) -> None:
        """Let `save` write a checkpoint, and send it. What `save` raises is raised.

        Args:
            facts: what `Checkpoints.commit` is told besides: `metrics`, `best_value`, `best_epoch`, `recent`.

        Raises:
            DiskFullError: there is no room for it, even after the node's cache has given way.
        """

        arguments = {"portable_file": self._portable_file, **facts}
        full = False

        def fill(folder: Path) -> None:
            nonlocal full
            try:
                save(folder)
            except Exception as error:
                # Looked at before the half-written files go. Frameworks turn ENOSPC into errors of their own.
                full = getattr(error, "errno", None) == errno.ENOSPC or self._is_full()
                raise

        try:
            item = self._outbox.add("checkpoint", fill, arguments, epoch=epoch, best=is_best)
        except Exception as error:
            # Datasets can be fetched again, a checkpoint cannot.
            if not full:
                raise
            if not NodeCache(self._settings.cache).prune(0):
                raise self._full(epoch, error) from error
            try:
                item = self._outbox.add("checkpoint", fill, arguments, epoch=epoch, best=is_best)
            except Exception as again:
                raise self._full(epoch, again) from again
        self._add(item)

    def file(self, path: Path, key: str) -> None:
        """Send a file; a later one of the same key replaces it. A failure is a warning."""
        self._copied(path, "file", {"key": key}, f"The file {path.name}")

    def weights(self, path: Path, framework: str, name: str) -> None:
        """Send pretrained weights, a file or a folder. A failure is a warning."""
        self._copied(path, "weights", {"framework": framework, "name": name}, f"The weights {name}")

    def close(self) -> None:
        """Wait until all is sent, or the store's time is up."""
        with self._changed:
            self._closing_at = time.monotonic()
            self._changed.notify()
        self._thread.join()
        for one in self._waiting:
            self._warn(
                f"{str(one.item).capitalize()} is not in the store yet; it is kept in {one.path} on "
                f"{socket.gethostname()}. The next job there sends it, or: eagleray storage retry"
            )
        self._outbox.close()

    def _copied(self, path: Path, kind: Any, arguments: dict[str, Any], what: str) -> None:
        def fill(folder: Path) -> None:
            # A copy: the framework goes on with its own file.
            if path.is_dir():
                shutil.copytree(path, folder / path.name)
            else:
                shutil.copyfile(path, folder / path.name)

        try:
            self._add(self._outbox.add(kind, fill, arguments))
        except OSError as error:
            self._warn(f"{what} could not be stored: {error}")

    def _add(self, item: PendingItem) -> None:
        with self._changed:
            self._waiting.append(item)
            # The first is being sent.
            waiting = self._waiting[1:]
            if sum(one.item.kind == "checkpoint" for one in waiting) > MAX_WAITING or self._failing_since:
                for gone in superseded(waiting):
                    self._waiting.remove(gone)
                    gone.remove()
            self._changed.notify()

    def _run(self) -> None:
        tried = 0
        while (item := self._next()) is not None:
            try:
                item.send(self._store)
            except (CheckpointError, WeightsError) as error:
                self._warn(f"{str(item.item).capitalize()} could not be stored: {error}")
            except Exception as error:
                tried += 1
                if not self._wait(item, error, tried):
                    return
                continue
            else:
                self._sent(item)
            tried = 0
            with self._changed:
                self._waiting.remove(item)
            item.remove()

    def _next(self) -> PendingItem | None:
        with self._changed:
            while not self._waiting:
                if self._closing_at is not None:
                    return None
                self._changed.wait()
            if self._failing_since:
                # After an outage the newest counts; what it replaces is not sent first.
                for gone in superseded(self._waiting):
                    self._waiting.remove(gone)
                    gone.remove()
            return self._waiting[0]

    def _sent(self, item: PendingItem) -> None:
        if self._failing_since is not None:
            self._warn(f"The store takes uploads again after {time.monotonic() - self._failing_since:.0f} s.")
            self._failing_since = None
        if item.item.kind == "checkpoint":
            self._send({"type": "checkpoint", "epoch": item.item.epoch, "best": item.item.best})

    def _wait(self, item: PendingItem, error: Exception, tried: int) -> bool:
        """Wait for the next try; False where the store's time is up."""
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
            self._warn(f"{str(item.item).capitalize()} cannot be stored yet: {error} Training goes on meanwhile.")
        pause_s = random.uniform(0, min(RETRY_CAP_S, RETRY_BASE_S * 2**tried))
        with self._changed:
            while (left := now + pause_s - time.monotonic()) > 0:
                if self._closing_at is not None:
                    over = max(self._closing_at, self._failing_since) + self._settings.upload_grace_s
                    if time.monotonic() >= over:
                        return False
                    left = min(left, over - time.monotonic())
                self._changed.wait(left)
            return True

    def _is_full(self) -> bool:
        return shutil.disk_usage(self._outbox.folder).free < FULL_BYTES

    def _full(self, epoch: int, error: Exception) -> DiskFullError:
        return DiskFullError(
            f"The checkpoint of epoch {epoch} cannot be saved: no space left in {self._outbox.folder} ({error}).",
            "Free some space there, or name another folder with EAGLERAY_HOME.",
        )

    def _warn(self, message: str) -> None:
        self.warnings.append(message)
        self._send({"type": "warning", "message": message})


def finish_others(store: Store, settings: Settings) -> None:
    """Send what earlier jobs of this node left, beside this one. What cannot be sent now, a later job sends."""

    def finish() -> None:
        with suppress(Exception):
            finish_pending(store, settings.pending)
            sweep_daily(store, settings.home / "swept")

    threading.Thread(target=finish, name="eagleray-pending", daemon=True).start()
