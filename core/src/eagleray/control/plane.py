"""The control plane without Ray: commands in, rows out; a dispatcher thread does what they call for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine

from eagleray import __version__
from eagleray.contract.errors import ConfigError, EaglerayError
from eagleray.control import access, lifecycle
from eagleray.control.cleaning import Cleaner
from eagleray.control.commands import Caller, Plain
from eagleray.control.creating import Creation, body_hash
from eagleray.control.dataset_index import index_datasets
from eagleray.control.dispatch import Dispatcher
from eagleray.control.errors import ForbiddenError
from eagleray.control.executor import Executor, ExecutorAwayError
from eagleray.control.lifecycle import REGISTERED
from eagleray.control.queries import Queries, unknown_job
from eagleray.control.queueing import waiting_reason
from eagleray.control.recording import check_current, record, scrubbed
from eagleray.control.rows import AttemptRow, JobRow
from eagleray.control.scheduling import QueuedJob
from eagleray.control.settings import ControlSettings
from eagleray.control.specs import SpecCheck, gang_of
from eagleray.control.writing import Transaction, Writer
from eagleray.jobs.phases import IllegalPhaseError, Phase
from eagleray.jobs.records import JobRecord
from eagleray.jobs.resume import resumed_spec
from eagleray.storage.store import Store

MAX_PRIORITY = 1000
# After every job that there is.
_NEXT_ID = 1 << 62


def _utc_now() -> datetime:
    return datetime.now(UTC)


class ControlPlane:
    """Implements `Commands`. `start()` before use, `close()` at the end; all methods may be called from any thread.

    Args:
        engine: from `open_database`.
        store: where job records and checkpoints are.
        check: see `specs.checking`.
    """

    def __init__(
        self,
        engine: Engine,
        executor: Executor,
        store: Store,
        check: SpecCheck,
        *,
        settings: ControlSettings | None = None,
        clock: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._settings = settings or ControlSettings()
        self._executor = executor
        self._clock = clock
        self._check = check
        self._writer = Writer(engine, clock, timeout_s=self._settings.command_s)
        self._queries = Queries(engine)
        self._creation = Creation(self._writer, store)
        self.dispatcher = Dispatcher(self._writer, executor, store, self._settings)
        self.cleaner = Cleaner(self._writer, store, self._settings)
        self._started = time.monotonic()

    def start(self, *, owner_timeout_s: float = 30.0, dispatch: bool = True) -> None:
        """Take the database and go on where the last control plane ended.

        Args:
            dispatch: False: nothing happens by itself; tests call `dispatcher.tick()` and `cleaner.clean()`.

        Raises:
            DatabaseBusyError: another control plane keeps it.
        """
        self._writer.start(self._wake, owner_timeout_s=owner_timeout_s)
        self.dispatcher.recover()
        if dispatch:
            self.dispatcher.start()
            self.cleaner.start()

    def _wake(self) -> None:
        self.dispatcher.wake()
        self.cleaner.wake()

    def close(self) -> None:
        self.dispatcher.close()
        self.cleaner.close()
        self._writer.close()

    def create_job(
        self,
        caller: Caller,
        spec: Plain,
        *,
        start: bool = False,
        idempotency_key: str | None = None,
        priority: int = 0,
        parent: int | None = None,
        submission_id: str | None = None,
    ) -> Plain:
        access.need(caller, "write")
        _check_priority(priority)
        spec = self._at_home(caller, spec)
        body = body_hash({"spec": spec, "start": start, "priority": priority, "parent": parent})

        def create(idempotency: tuple[str, str, str] | None) -> int:
            checked = self._check(spec)
            made = self._creation.take_id(checked)
            self._writer.run(
                lambda transaction: self._creation.insert(
                    transaction,
                    caller,
                    made,
                    checked,
                    start=start,
                    priority=priority,
                    parent=parent,
                    submission=submission_id,
                    idempotency=idempotency,
                )
            )
            return made.id

        if idempotency_key is None:
            return self._view(create(None), caller)
        scope = f"key:{caller.key_id}" if caller.key_id is not None else f"name:{caller.name}"
        with self._creation.one_at_a_time(scope, idempotency_key):
            seen = self._creation.seen(scope, idempotency_key, body)
            return self._view(seen or create((scope, idempotency_key, body)), caller)

    def clone_job(
        self,
        caller: Caller,
        job_id: int,
        changes: Plain,
        *,
        start: bool = False,
        idempotency_key: str | None = None,
    ) -> Plain:
        access.need(caller, "write")
        view = self._queries.get_job(job_id, caller.projects)
        spec = {key: value for key, value in view.spec.items() if key not in ("resume", "created_by")}
        return self.create_job(
            caller,
            {**spec, **changes},
            start=start,
            idempotency_key=idempotency_key,
            priority=view.priority,
            parent=job_id,
        )

    def would_wait(self, caller: Caller, spec: Plain, priority: int = 0) -> Plain:
        access.need(caller, "read")
        _check_priority(priority)
        spec = self._at_home(caller, spec)
        access.need_project(caller, spec["project_id"])
        gang = gang_of(self._check(spec).gang, [])
        try:
            capacity = self._executor.capacity()
        except ExecutorAwayError:
            capacity = None
        job = QueuedJob(_NEXT_ID, spec["project_id"], priority, self._clock().timestamp(), gang)
        with self._queries.reading() as connection:
            reason = waiting_reason(connection, job, capacity, self._settings)
        return {"would_wait": bool(reason), "reason": reason}

    def start_job(self, caller: Caller, job_id: int) -> Plain:
        def start(job: JobRow) -> None:
            if job.phase is Phase.CREATED:
                lifecycle.queue(job, "waits for its turn")
            elif job.phase.is_terminal:
                raise IllegalPhaseError(
                    f"Job {job_id} is {job.phase} and cannot be started.", f"Try: eagleray jobs resume {job_id}"
                )

        return self._change(caller, job_id, start)

    def stop_job(self, caller: Caller, job_id: int) -> Plain:
        return self._change(caller, job_id, lifecycle.stop)

    def cancel_job(self, caller: Caller, job_id: int) -> Plain:
        return self._change(caller, job_id, lambda job: lifecycle.cancel(job, f"cancelled by {caller.name}"))

    def resume_job(self, caller: Caller, job_id: int, *, epochs: int | None = None) -> Plain:
        def resume(job: JobRow) -> None:
            if job.phase is Phase.CREATED:
                raise IllegalPhaseError(f"Job {job_id} was never started.", f"Try: eagleray jobs start {job_id}")
            spec = resumed_spec(_as_record(job), {} if epochs is None else {"epochs": epochs})
            lifecycle.queue(job, "resumes")
            job["spec"], job["epochs"] = spec, int(spec["epochs"])

        return self._change(caller, job_id, resume)

    def retry_job(self, caller: Caller, job_id: int) -> Plain:
        def retry(job: JobRow) -> None:
            if job.phase not in (Phase.FAILED, Phase.CANCELLED):
                raise IllegalPhaseError(f"Job {job_id} is {job.phase}, so there is nothing to retry.", "")
            lifecycle.queue(job, "tried again")
            job["excluded_nodes"] = []

        return self._change(caller, job_id, retry)

    def delete_job(self, caller: Caller, job_id: int) -> Plain:
        def remove(job: JobRow) -> None:
            if not (job.phase.is_terminal or job.phase is Phase.CREATED):
                raise IllegalPhaseError(
                    f"Job {job_id} is {job.phase} and cannot be deleted.", f"Try: eagleray jobs cancel {job_id}"
                )
            job["deleted_at"] = job.transaction.now
            job.event("deleted", {})
            job.transaction.stirred = True

        self._write(caller, job_id, remove)
        return {"id": job_id, "deleted": True}

    def set_priority(self, caller: Caller, job_id: int, priority: int, *, if_match: str | None = None) -> Plain:
        _check_priority(priority)

        def change(job: JobRow) -> None:
            access.check_etag(job["version"], if_match)
            if job.phase not in (Phase.CREATED, Phase.QUEUED):
                raise IllegalPhaseError(
                    f"Job {job_id} is {job.phase}; its priority counts only while it waits.", "Resume it to queue it."
                )
            if job["priority"] != priority:
                job["priority"] = priority
                job.event("priority", {"priority": priority})
                job.transaction.stirred = True

        return self._change(caller, job_id, change)

    def create_project(
        self, caller: Caller, name: str, *, quota_jobs: int | None = None, quota_gpus: float | None = None
    ) -> Plain:
        access.need_global(caller)
        quotas = access.quota(quota_jobs, quota_gpus)
        return self._writer.run(lambda transaction: access.add_project(transaction, name, quotas))

    def update_project(
        self,
        caller: Caller,
        name: str,
        *,
        quota_jobs: int | None = None,
        quota_gpus: float | None = None,
        if_match: str | None = None,
    ) -> Plain:
        access.need_global(caller)
        quotas = access.quota(quota_jobs, quota_gpus)
        return self._writer.run(lambda transaction: access.change_project(transaction, name, quotas, if_match))

    def delete_project(self, caller: Caller, name: str) -> Plain:
        access.need_global(caller)
        return self._writer.run(lambda transaction: access.remove_project(transaction, name))

    def create_user(self, caller: Caller, name: str, *, projects: Sequence[str] | None = None) -> Plain:
        access.need_global(caller)
        return self._writer.run(lambda transaction: access.add_user(transaction, name, projects))

    def delete_user(self, caller: Caller, user_id: int) -> Plain:
        access.need_global(caller)
        return self._writer.run(lambda transaction: access.remove_user(transaction, user_id))

    def create_key(
        self,
        caller: Caller,
        *,
        name: str,
        scopes: Sequence[str],
        projects: Sequence[str] | None,
        user_id: int | None = None,
        expires_at: str | None = None,
    ) -> Plain:
        access.need_global(caller)
        key, until = access.new_key(), access.moment(expires_at)
        return self._writer.run(
            lambda transaction: access.add_key(
                transaction, key, name=name, scopes=scopes, projects=projects, user_id=user_id, expires_at=until
            )
        )

    def revoke_key(self, caller: Caller, key_id: int) -> Plain:
        access.need_global(caller)
        return self._writer.run(lambda transaction: access.revoke(transaction, key_id))

    def index_datasets(self, found: Mapping[str, Plain | None]) -> None:
        self._writer.run(lambda transaction: index_datasets(transaction, found))

    def record(self, job_id: int, attempt: int, events: Sequence[Plain]) -> int:
        return self._writer.run(lambda transaction: record(transaction, self._settings, job_id, attempt, events))

    def admission(self, job_id: int, attempt: int) -> Plain:
        def look(transaction: Transaction) -> Plain:
            job, row = JobRow.load(transaction, job_id), AttemptRow.load(transaction, job_id, attempt)
            check_current(job, row)
            return {"admitted": row["state"] != REGISTERED, "reason": job["reason"]}

        return self._writer.run(look)

    def wait_for_events(self, after_seq: int, timeout_s: float) -> int:
        return self._writer.wait(after_seq, min(timeout_s, 60.0))

    def health(self) -> Plain:
        parts: dict[str, Plain] = {"dispatcher": self.dispatcher.health()}
        started = time.perf_counter()
        try:
            self._writer.run(lambda transaction: None)
            took = (time.perf_counter() - started) * 1000
            parts["database"] = {"ok": True, "message": f"answers within {took:.0f} ms"}
        except EaglerayError as error:
            parts["database"] = {"ok": False, "message": str(error)}
        return {
            "status": "ok" if all(part["ok"] for part in parts.values()) else "degraded",
            "version": __version__,
            "uptime_s": round(time.monotonic() - self._started, 1),
            "newest_seq": self._writer.newest_seq,
            "parts": parts,
        }

    def _at_home(self, caller: Caller, spec: Plain) -> Plain:
        """The spec in a project that the caller sees, and in the caller's name."""
        if scrubbed(spec) != spec:
            raise ConfigError("The job has a text with NUL, or with half of a character.", "Write it as valid UTF-8.")
        project = spec.get("project_id")
        if project is None and caller.projects is not None:
            if len(caller.projects) != 1:
                names = ", ".join(sorted(caller.projects)) or "none"
                raise ForbiddenError("The job names no project.", f"Set project_id to one of: {names}.")
            project = next(iter(caller.projects))
        return {**spec, "project_id": project, "created_by": spec.get("created_by") or caller.name}

    def _change(self, caller: Caller, job_id: int, change: Callable[[JobRow], None]) -> Plain:
        self._write(caller, job_id, change)
        return self._view(job_id, caller)

    def _write(self, caller: Caller, job_id: int, change: Callable[[JobRow], None]) -> None:
        access.need(caller, "write")

        def work(transaction: Transaction) -> None:
            job = JobRow.load(transaction, job_id)
            if not caller.sees(job["project_id"]):
                raise unknown_job(job_id)
            change(job)
            job.save()

        self._writer.run(work)

    def _view(self, job_id: int, caller: Caller) -> Plain:
        return self._queries.get_job(job_id, caller.projects).model_dump(mode="json")


def _check_priority(priority: int) -> None:
    if not -MAX_PRIORITY <= priority <= MAX_PRIORITY:
        raise ConfigError(f"priority {priority} is out of range.", f"Valid: -{MAX_PRIORITY} to {MAX_PRIORITY}.")


def _as_record(job: JobRow) -> JobRecord:
    names: list[str] = [name for name in JobRecord.model_fields if name not in ("attempts", "batch_size", "artifacts")]
    values: dict[str, Any] = {name: job[name] for name in names}
    return JobRecord.model_validate({**values, "batch_size": job["spec"]["batch_size"]})
