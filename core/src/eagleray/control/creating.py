"""New jobs: an id from the store, a row, and an idempotency key, so that what is asked twice is made once."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import func, insert, select

from eagleray.control import lifecycle
from eagleray.control.access import ensure_project
from eagleray.control.commands import Caller, Plain
from eagleray.control.database.tables import Event, IdempotencyKey, TrainingJob
from eagleray.control.errors import ConflictError
from eagleray.control.rows import JobRow
from eagleray.control.specs import CheckedSpec
from eagleray.control.writing import Transaction, Writer
from eagleray.jobs.phases import Phase
from eagleray.jobs.records import JobRecord, JobRecords
from eagleray.storage.store import Store


def _newest_id(transaction: Transaction) -> int:
    """The highest ever: of a deleted job an event is left."""
    newest = (select(func.coalesce(func.max(column), 0)) for column in (TrainingJob.id, Event.job_id))
    return max(int(transaction.connection.execute(wanted).scalar_one()) for wanted in newest)


def body_hash(body: Plain) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, default=str).encode()).hexdigest()


class Creation:
    """Takes ids and writes rows. Requests with one idempotency key go one after the other."""

    def __init__(self, writer: Writer, store: Store) -> None:
        self._writer = writer
        self._store = store
        self._records = JobRecords(store)
        self._lock = threading.Lock()
        self._next_id: int | None = None
        self._keys: dict[tuple[str, str], list[Any]] = {}

    def seen(self, scope: str, key: str, body: str) -> int | None:
        """The job that this key has made already. Raises ConflictError where it was for another body."""

        def look(transaction: Transaction) -> int | None:
            wanted = select(IdempotencyKey.job_id, IdempotencyKey.body_sha256)
            wanted = wanted.where(IdempotencyKey.scope == scope, IdempotencyKey.key == key)
            row = transaction.connection.execute(wanted).one_or_none()
            if row is None:
                return None
            if row.body_sha256 != body:
                raise ConflictError(
                    f"The idempotency key '{key[:60]}' was used for another request (job {row.job_id}).",
                    "Use a new key for a new request.",
                )
            return int(row.job_id)

        return self._writer.run(look)

    @contextmanager
    def one_at_a_time(self, scope: str, key: str) -> Iterator[None]:
        name = scope, key
        with self._lock:
            entry = self._keys.setdefault(name, [threading.Lock(), 0])
            entry[1] += 1
        try:
            with entry[0]:
                yield
        finally:
            with self._lock:
                entry[1] -= 1
                if entry[1] == 0:
                    del self._keys[name]

    def take_id(self, checked: CheckedSpec) -> JobRecord:
        """A record under a new id in the store, where laptops and other control planes take theirs from too."""
        with self._lock:
            if self._next_id is None:
                self._next_id = self._writer.run(_newest_id)
                first = self._next_id + 1 if self._next_id else None
            else:
                first = self._next_id + 1
            record = self._records.create({**checked.fields, "spec": checked.spec}, first_id=first)
            self._next_id = record.id
        return record

    def insert(
        self,
        transaction: Transaction,
        caller: Caller,
        record: JobRecord,
        checked: CheckedSpec,
        *,
        start: bool,
        priority: int,
        parent: int | None,
        submission: str | None,
        idempotency: tuple[str, str, str] | None,
    ) -> None:
        found = transaction.connection.execute(select(TrainingJob.id).where(TrainingJob.id == record.id)).first()
        if found is not None:
            return  # this very transaction, whose acknowledgement was lost
        ensure_project(transaction, caller, record.project_id)
        now = transaction.now
        transaction.connection.execute(
            insert(TrainingJob).values(
                id=record.id,
                **{**checked.fields, "batch_size": str(checked.fields["batch_size"])},
                status=Phase.CREATED.status.value,
                phase=Phase.CREATED.value,
                output_dir=f"{self._store.location.rstrip('/')}/{record.prefix}",
                spec=checked.spec,
                dataset={},
                environment={},
                epochs_done=0,
                metrics={},
                artifacts={},
                resumable=False,
                warnings=[],
                priority=priority,
                reason="",
                parent=parent,
                gang=checked.gang,
                current_attempt=0,
                attempt_count=0,
                failure_counts={},
                excluded_nodes=[],
                created_at=now,
                updated_at=now,
                version=1,
            )
        )
        job = JobRow.load(transaction, record.id)
        job.event("phase", {"phase": job.phase.value, "status": job.phase.status.value, "message": "created"})
        if start:
            lifecycle.queue(job, "waits for its turn")
        if submission is not None:
            lifecycle.register(job, submission)
        job.save()
        if idempotency is not None:
            scope, key, body = idempotency
            values = {"scope": scope, "key": key, "body_sha256": body, "job_id": record.id, "created_at": now}
            transaction.connection.execute(insert(IdempotencyKey).values(**values))
