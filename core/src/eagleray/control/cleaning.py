"""What nobody needs any more goes: in a thread of its own, since a store that is away must not hold up the queue."""

from __future__ import annotations

import functools
import logging
import threading
import time
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, select

from eagleray.contract.errors import EaglerayError
from eagleray.control.database.tables import Attempt, Event, IdempotencyKey, LogRow, TrainingJob
from eagleray.control.settings import ControlSettings
from eagleray.control.writing import Transaction, Writer
from eagleray.storage import layout
from eagleray.storage.store import Store

_IDLE_S = 60.0
_KEYS_S = 3600.0
# One job's files that cannot be removed stand in nobody's way; a store that is away is not asked for every job.
_GIVE_UP_AFTER = 3
# SQLite looks a comparison up in the index; for IS NOT NULL it reads every job that ever was.
_EVER = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 600.0
logger = logging.getLogger(__name__)


class Cleaner:
    def __init__(self, writer: Writer, store: Store, settings: ControlSettings) -> None:
        self._writer = writer
        self._store = store
        self._settings = settings
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="eagleray-cleaner", daemon=True)
        self._next_keys = 0.0

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        self._wake.set()

    def close(self) -> None:
        self._closed.set()
        self._wake.set()
        if self._thread.is_alive():
            # A store that is away may hold it for longer; it holds nothing that the next control plane needs.
            self._thread.join(5)

    def clean(self) -> None:
        """Files and rows of deleted jobs, and idempotency keys past their time. Raises EaglerayError."""
        if time.monotonic() >= self._next_keys:
            self._next_keys = time.monotonic() + _KEYS_S
            since = timedelta(seconds=self._settings.idempotency_s)
            self._writer.run(functools.partial(_forget_keys, since=since))
        held = select(Attempt.job_id).where(Attempt.released.is_(False))
        wanted = select(TrainingJob.id, TrainingJob.project_id)
        wanted = wanted.where(TrainingJob.deleted_at > _EVER, TrainingJob.id.not_in(held))
        errors: list[EaglerayError] = []
        for row in self._writer.run(lambda transaction: transaction.connection.execute(wanted).all()):
            if self._closed.is_set() or len(errors) == _GIVE_UP_AFTER:
                break
            try:
                self._store.delete_prefix(layout.job_prefix(row.id, row.project_id))
                self._store.delete(layout.job_record_key(row.id))
            except EaglerayError as error:
                errors.append(error)
                continue
            self._writer.run(functools.partial(_forget, job_id=row.id))
        if errors:
            raise errors[0]

    def _serve(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while not self._closed.is_set():
            self._wake.clear()
            try:
                self.clean()
            except Exception as error:
                logger.warning(
                    "Deleted jobs' files cannot be removed yet: %s",
                    error,
                    exc_info=not isinstance(error, EaglerayError),
                )
                # Not woken by whatever happens meanwhile.
                self._closed.wait(pause_s)
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
            else:
                pause_s = _FIRST_PAUSE_S
                self._wake.wait(_IDLE_S)


def _forget(transaction: Transaction, job_id: int) -> None:
    """All rows but the event that says so, which readers may still be on their way to."""
    connection = transaction.connection
    connection.execute(delete(Event).where(Event.job_id == job_id, Event.type != "deleted"))
    connection.execute(delete(LogRow).where(LogRow.job_id == job_id))
    connection.execute(delete(Attempt).where(Attempt.job_id == job_id))
    connection.execute(delete(IdempotencyKey).where(IdempotencyKey.job_id == job_id))
    connection.execute(delete(TrainingJob).where(TrainingJob.id == job_id))


def _forget_keys(transaction: Transaction, since: timedelta) -> None:
    old = delete(IdempotencyKey).where(IdempotencyKey.created_at < transaction.now - since)
    transaction.connection.execute(old)
