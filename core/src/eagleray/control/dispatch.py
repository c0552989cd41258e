"""The thread that does what the rows call for: submits, stops, and compares with what Ray says.

Every step is found in the database and safe to repeat, so a control plane that is killed anywhere goes on by starting
again; there is no recovery code beside `recover`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, select, update

from eagleray.contract.errors import EaglerayError, UnknownNameError
from eagleray.contract.failures import FailureKind
from eagleray.control import lifecycle
from eagleray.control.database.tables import Attempt, TrainingJob
from eagleray.control.executor import Executor, ExecutorAwayError, RunState, RunStatus, Submission
from eagleray.control.lifecycle import ENDED, REGISTERED, SUBMITTED, SUBMITTING, Ending
from eagleray.control.outcomes import stored_ending
from eagleray.control.queueing import Pass, run_pass
from eagleray.control.rows import AttemptRow, JobRow
from eagleray.control.settings import ControlSettings
from eagleray.control.writing import Transaction, Writer
from eagleray.jobs.phases import Phase
from eagleray.jobs.records import JobRecords
from eagleray.storage.failpoints import failpoint
from eagleray.storage.store import Store

_STOP_AGAIN_S = 90.0
_IDLE_S = 60.0
_QUEUE_POLL_S = 5.0
# A store that did not answer is not asked at every turn: each question may take as long as its own timeout.
_STORE_PAUSE_S = 15.0
# A driver that has said its last word has this long to go by itself.
_LINGER_S = 60.0
logger = logging.getLogger(__name__)


class Dispatcher:
    def __init__(self, writer: Writer, executor: Executor, store: Store, settings: ControlSettings) -> None:
        self._writer = writer
        self._executor = executor
        self._store = store
        self._settings = settings
        self._wake = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="eagleray-dispatcher", daemon=True)
        self._trouble = ""
        self._away_since: float | None = None
        self._next_look = 0.0
        self._next_store = 0.0

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        self._wake.set()

    def close(self) -> None:
        self._closed = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(30)

    def health(self) -> dict[str, Any]:
        alive = self._thread.is_alive() or not self._thread.ident
        return {"ok": alive and not self._trouble, "message": self._trouble or "the cluster answers"}

    def recover(self) -> None:
        """Drivers could not renew their leases while nobody was there to hear them."""

        def extend(transaction: Transaction) -> None:
            until = transaction.now + timedelta(seconds=self._settings.lease_s)
            # One that has only just been started may have longer than that already.
            waiting = update(Attempt).where(Attempt.state != ENDED, Attempt.lease_until < until)
            transaction.connection.execute(waiting.values(lease_until=until))

        self._writer.run(extend)

    def tick(self) -> float:
        """Everything that is to be done now; seconds until there may be more."""
        wait_s = _IDLE_S
        try:
            active = self._actives()
            if active and time.monotonic() >= self._next_look:
                self._reconcile(active)
                self._next_look = time.monotonic() + self._settings.poll_s
            found = self._schedule()
            self._submit_and_stop()
            if self._actives():
                wait_s = self._settings.poll_s
            elif found.waiting:
                wait_s = _QUEUE_POLL_S
            if found.next_s is not None:
                wait_s = min(wait_s, max(found.next_s, 0.05))
            self._trouble, self._away_since = "", None
        except ExecutorAwayError as error:
            # Unreachable is not failed: everything stays as it is until the cluster answers.
            self._away_since = self._away_since or time.monotonic()
            self._trouble = f"the cluster has not answered for {time.monotonic() - self._away_since:.0f} s: {error}"
            wait_s = self._settings.poll_s
        return wait_s

    def _serve(self) -> None:
        while not self._closed:
            try:
                self._wake.clear()
                wait_s = self.tick()
            except EaglerayError as error:
                logger.warning("The dispatcher tries again: %s", error)
                self._trouble, wait_s = str(error), 5.0
            except Exception as error:
                logger.exception("The dispatcher could not do its work; it tries again.")
                self._trouble, wait_s = f"{type(error).__name__}: {error}", 5.0
            self._wake.wait(wait_s)

    def _actives(self) -> Sequence[Row[Any]]:
        """Attempts that may still hold something of the cluster."""
        columns = (
            Attempt.job_id,
            Attempt.number,
            Attempt.submission_id,
            Attempt.state,
            Attempt.outcome,
            Attempt.ended_at,
            Attempt.lease_until,
            Attempt.last_seen_at,
            Attempt.stop_sent_at,
            Attempt.ray_ended_at,
            TrainingJob.phase,
            TrainingJob.spec,
            TrainingJob.excluded_nodes,
            TrainingJob.project_id,
        )
        wanted = select(*columns).join(TrainingJob, TrainingJob.id == Attempt.job_id).where(Attempt.released.is_(False))
        return self._writer.run(lambda transaction: transaction.connection.execute(wanted).all())

    def _schedule(self) -> Pass:
        def waiting(transaction: Transaction) -> bool:
            wanted = select(TrainingJob.id).where(TrainingJob.phase == Phase.QUEUED, TrainingJob.deleted_at.is_(None))
            return transaction.connection.execute(wanted.limit(1)).first() is not None

        if not self._writer.run(waiting):
            return Pass(waiting=0, next_s=None)
        capacity = self._executor.capacity()
        return self._writer.run(lambda transaction: run_pass(transaction, capacity, self._settings))

    def _submit_and_stop(self) -> None:
        for row in self._actives():
            if row.state == SUBMITTING and row.phase == Phase.PREPARING:
                self._submit(row)
            elif row.state == ENDED:
                if row.outcome == "cancelled" or (self._now() - row.ended_at).total_seconds() > _LINGER_S:
                    self._stop(row)
            elif row.phase == Phase.STOPPING:
                self._stop(row)

    def _submit(self, row: Row[Any]) -> None:
        if not self._store_spec(row):
            return
        failpoint("control.before_submit")
        try:
            self._executor.submit(Submission(row.submission_id, row.job_id, row.number, tuple(row.excluded_nodes)))
        except ExecutorAwayError:
            raise
        except EaglerayError as error:
            self._end(row, lifecycle.lost(f"Ray refused it: {error}", FailureKind.CLUSTER), released=True)
            return
        failpoint("control.after_submit")
        submitted = update(Attempt).where(
            Attempt.job_id == row.job_id, Attempt.number == row.number, Attempt.state == SUBMITTING
        )
        self._writer.run(lambda transaction: transaction.connection.execute(submitted.values(state=SUBMITTED)))

    def _store_spec(self, row: Row[Any]) -> bool:
        """Put what is to be trained into the job's record, from which its driver reads it; whether it is there.

        Ray calls every earlier attempt ended by now, so nobody else writes the record.
        """
        if time.monotonic() < self._next_store:
            return False
        try:
            records = JobRecords(self._store)
            record = records.load(row.job_id)
            if record.spec != row.spec:
                record.spec = row.spec
                records.save(record)
        except UnknownNameError as error:
            self._end(row, lifecycle.lost(f"Its record is gone: {error.message}", FailureKind.STORAGE), released=True)
            return False
        except EaglerayError as error:
            self._next_store = time.monotonic() + _STORE_PAUSE_S
            self._explain(row, f"waits for the store: {error.message}")
            return False
        return True

    def _stop(self, row: Row[Any]) -> None:
        now = self._now()
        if row.stop_sent_at is not None and (now - row.stop_sent_at).total_seconds() < _STOP_AGAIN_S:
            return
        failpoint("control.before_stop")
        self._executor.stop(row.submission_id)
        failpoint("control.after_stop")
        sent = update(Attempt).where(Attempt.job_id == row.job_id, Attempt.number == row.number)
        self._writer.run(lambda transaction: transaction.connection.execute(sent.values(stop_sent_at=now)))

    def _now(self) -> datetime:
        return self._writer.run(lambda transaction: transaction.now)

    def _reconcile(self, active: Sequence[Row[Any]]) -> None:
        statuses = self._executor.statuses([row.submission_id for row in active])
        now = self._now()
        for row in active:
            status = statuses.get(row.submission_id)
            if row.state == SUBMITTING and (status is None or row.phase == Phase.PREPARING):
                if row.phase == Phase.STOPPING:  # it was never submitted, and shall not be any more
                    self._end(row, Ending("stopped"), released=True)
                continue
            if status is None:
                self._gone(row, now, "Ray does not know it any more: its head was restarted", FailureKind.PREEMPTION)
            elif status.state is RunState.ENDED:
                self._gone(row, now, f"its driver ended without a word ({status.message or 'no reason given'})")
            elif row.state != ENDED:
                self._silent(row, status, now)

    def _gone(self, row: Row[Any], now: datetime, why: str, kind: FailureKind = FailureKind.WORKER_LOST) -> None:
        """Ray has nothing of it any more. Its last words may still be on their way, or lie in the store."""
        if row.state == ENDED:
            self._mark(row, released=True, ray_ended_at=row.ray_ended_at or now)
            return
        if row.ray_ended_at is None:
            self._mark(row, ray_ended_at=now)
            if self._settings.grace_s:
                return
        elif (now - row.ray_ended_at).total_seconds() < self._settings.grace_s:
            return
        ending = stored_ending(self._store, row.job_id, row.number)
        if ending is None and row.state == REGISTERED and kind is not FailureKind.PREEMPTION:
            ending = Ending("cancelled")  # by its owner: Ray knows it, and it has ended
        if ending is None and row.phase == Phase.STOPPING:
            ending = Ending("stopped")
        self._end(row, ending or lifecycle.lost(why[0].upper() + why[1:] + ".", kind), released=True)

    def _silent(self, row: Row[Any], status: RunStatus, now: datetime) -> None:
        """Ray calls it running, and nothing is heard of it: waited for, said, and only after long replaced."""
        if status.state is not RunState.RUNNING:
            return
        if row.lease_until is None:
            self._mark(row, lease_until=now + timedelta(seconds=self._settings.start_s))
            return
        if now <= row.lease_until:
            return
        if row.last_seen_at is None:
            why = f"Its driver has not said a word within {self._settings.start_s:g} s."
            self._end(row, lifecycle.lost(why), released=False)
            return
        silent_s = (now - row.lease_until).total_seconds() + self._settings.lease_s
        if silent_s < self._settings.silence_s:
            self._warn(row, "Its driver has said nothing for a while; Ray calls it running, so it is waited for.")
        else:
            why = f"Its driver has said nothing for {self._settings.silence_s:g} s."
            self._end(row, lifecycle.lost(why), released=False)

    def _explain(self, row: Row[Any], reason: str) -> None:
        def work(transaction: Transaction) -> None:
            job = JobRow.load(transaction, row.job_id)
            job["reason"] = reason
            job.save()

        self._writer.run(work)

    def _warn(self, row: Row[Any], message: str) -> None:
        def work(transaction: Transaction) -> None:
            job = JobRow.load(transaction, row.job_id)
            job.warn(message)
            job.save()

        self._writer.run(work)

    def _mark(self, row: Row[Any], **values: Any) -> None:
        wanted = update(Attempt).where(Attempt.job_id == row.job_id, Attempt.number == row.number)

        def work(transaction: Transaction) -> None:
            transaction.connection.execute(wanted.values(**values))
            transaction.stirred = transaction.stirred or bool(values.get("released"))

        self._writer.run(work)

    def _end(self, row: Row[Any], ending: Ending, *, released: bool) -> None:
        """End the attempt, unless its driver has said in the meantime how it ended."""

        def work(transaction: Transaction) -> None:
            job = JobRow.load(transaction, row.job_id)
            attempt = AttemptRow.load(transaction, row.job_id, row.number)
            if attempt["state"] != ENDED:
                lifecycle.finish(job, attempt, ending)
            attempt["released"] = released or attempt["released"]
            attempt.save()
            job.save()
            transaction.stirred = True

        self._writer.run(work)
