"""A control plane without a cluster: it writes the real tables, and runs nothing."""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from eagleray.contract.errors import UnknownNameError
from eagleray.control.commands import SYSTEM, Caller
from eagleray.control.database.opening import open_database, open_read_only
from eagleray.control.database.tables import (
    ApiKey,
    Attempt,
    Event,
    IdempotencyKey,
    LogRow,
    Metric,
    Project,
    TrainingJob,
    User,
)
from eagleray.control.dataset_index import index_datasets
from eagleray.control.errors import ConflictError, ForbiddenError, PreconditionError
from eagleray.control.queries import Queries, unknown_job
from eagleray.control.views import KeyView, ProjectView, UserView
from eagleray.control.writing import Transaction
from eagleray.jobs import phases
from eagleray.jobs.phases import Phase
from eagleray.jobs.spec import make_spec

Plain = dict[str, Any]


def now() -> datetime:
    return datetime.now(UTC)


class FakePlane:
    """`Commands` over a database of its own."""

    def __init__(self, home: Path) -> None:
        self.engine: Engine = open_database(None, home)
        self.queries = Queries(open_read_only(None, home))
        self._lock = threading.Lock()
        self.healthy = True
        self.waits_for = ""
        self.closed = False

    # Jobs

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
        _may_write(caller)
        made = make_spec(spec)
        if not caller.sees(made.project_id):
            raise UnknownNameError(f"Unknown project '{made.project_id}'.")
        body = hashlib.sha256(json.dumps([spec, start, priority], sort_keys=True).encode()).hexdigest()
        with self._lock, Session(self.engine) as session:
            if idempotency_key is not None:
                scope = str(caller.key_id)
                known = session.scalar(select(IdempotencyKey).filter_by(scope=scope, key=idempotency_key))
                if known is not None and known.body_sha256 != body:
                    raise ConflictError(f"The key '{idempotency_key}' was used for something else.")
                if known is not None:
                    return self._view(known.job_id)
            job_id = (session.scalar(select(func.max(TrainingJob.id))) or 0) + 1
            phase = Phase.QUEUED if start else Phase.CREATED
            values = made.plain()
            names = set(TrainingJob.__table__.columns.keys()) & set(values)
            job = TrainingJob(
                **{name: values[name] for name in names - {"batch_size", "task_type", "dataset_format"}},
                id=job_id,
                batch_size=str(made.batch_size),
                task_type=made.task_type or "image-classification",
                dataset_format=made.dataset_format or "dice",
                status=phase.status,
                phase=phase,
                spec=values,
                dataset={},
                environment={},
                metrics={},
                artifacts={},
                warnings=[],
                gang={},
                failure_counts={},
                excluded_nodes=[],
                priority=priority,
                parent=parent,
                created_at=now(),
                queued_at=now() if start else None,
                updated_at=now(),
            )
            session.add(job)
            if idempotency_key is not None:
                session.add(
                    IdempotencyKey(
                        scope=str(caller.key_id), key=idempotency_key, body_sha256=body, job_id=job_id, created_at=now()
                    )
                )
            self._say(session, job, "phase", {"phase": phase})
            session.commit()
        return self._view(job_id)

    def would_wait(self, caller: Caller, spec: Plain, priority: int = 0) -> Plain:
        made = make_spec(spec)
        if not caller.sees(made.project_id):
            raise UnknownNameError(f"Unknown project '{made.project_id}'.")
        return {"would_wait": bool(self.waits_for), "reason": self.waits_for}

    def start_job(self, caller: Caller, job_id: int) -> Plain:
        return self._move(caller, job_id, Phase.QUEUED)

    def stop_job(self, caller: Caller, job_id: int) -> Plain:
        return self._move(caller, job_id, Phase.STOPPING)

    def cancel_job(self, caller: Caller, job_id: int) -> Plain:
        return self._move(caller, job_id, Phase.CANCELLED)

    def resume_job(self, caller: Caller, job_id: int, *, epochs: int | None = None) -> Plain:
        return self._move(caller, job_id, None)

    def retry_job(self, caller: Caller, job_id: int) -> Plain:
        return self._move(caller, job_id, None)

    def delete_job(self, caller: Caller, job_id: int) -> Plain:
        _may_write(caller)
        with Session(self.engine) as session:
            job = self._job(session, caller, job_id)
            if not Phase(job.phase).is_terminal and job.phase != Phase.CREATED:
                raise ConflictError(f"Job {job_id} is {job.phase}.", "Cancel it first.")
            job.deleted_at = now()
            session.commit()
        return {"id": job_id, "deleted": True}

    def clone_job(
        self, caller: Caller, job_id: int, changes: Plain, *, start: bool = False, idempotency_key: str | None = None
    ) -> Plain:
        with Session(self.engine) as session:
            spec = dict(self._job(session, caller, job_id).spec)
        return self.create_job(caller, {**spec, **changes}, start=start, idempotency_key=idempotency_key, parent=job_id)

    def set_priority(self, caller: Caller, job_id: int, priority: int, *, if_match: str | None = None) -> Plain:
        _may_write(caller)
        with Session(self.engine) as session:
            job = self._job(session, caller, job_id)
            if if_match is not None and if_match != f'"{job.version}"':
                raise PreconditionError(f"Job {job_id} has changed.")
            job.priority = priority
            job.version += 1
            session.commit()
        return self._view(job_id)

    # Projects, users, keys

    def create_project(
        self, caller: Caller, name: str, *, quota_jobs: int | None = None, quota_gpus: float | None = None
    ) -> Plain:
        _may_admin(caller)
        with self._lock, Session(self.engine) as session:
            if session.get(Project, name) is not None:
                raise ConflictError(f"There is a project '{name}'.")
            session.add(Project(name=name, quota_jobs=quota_jobs, quota_gpus=quota_gpus, created_at=now()))
            session.commit()
        return self._project(name)

    def update_project(
        self,
        caller: Caller,
        name: str,
        *,
        quota_jobs: int | None = None,
        quota_gpus: float | None = None,
        if_match: str | None = None,
    ) -> Plain:
        _may_admin(caller)
        with Session(self.engine) as session:
            project = session.get(Project, name)
            if project is None:
                raise UnknownNameError(f"Unknown project '{name}'.")
            if if_match is not None and if_match != f'"{project.version}"':
                raise PreconditionError(f"Project '{name}' has changed.")
            project.quota_jobs, project.quota_gpus = quota_jobs, quota_gpus
            project.version += 1
            session.commit()
        return self._project(name)

    def delete_project(self, caller: Caller, name: str) -> Plain:
        _may_admin(caller)
        with Session(self.engine) as session:
            project = session.get(Project, name)
            if project is None:
                raise UnknownNameError(f"Unknown project '{name}'.")
            session.delete(project)
            session.commit()
        return {"name": name, "deleted": True}

    def create_user(self, caller: Caller, name: str, *, projects: Sequence[str] | None = None) -> Plain:
        _may_admin(caller)
        with self._lock, Session(self.engine) as session:
            if session.scalar(select(User).filter_by(name=name)) is not None:
                raise ConflictError(f"There is a user '{name}'.")
            session.add(User(name=name, projects=projects, created_at=now()))
            session.commit()
        return next(_plain(user) for user in self.queries.users() if user.name == name)

    def delete_user(self, caller: Caller, user_id: int) -> Plain:
        _may_admin(caller)
        with Session(self.engine) as session:
            user = session.get(User, user_id)
            if user is None:
                raise UnknownNameError(f"Unknown user '{user_id}'.")
            session.delete(user)
            session.commit()
        return {"id": user_id, "deleted": True}

    def create_key(
        self,
        caller: Caller,
        *,
        name: str,
        scopes: Any,
        projects: Any,
        user_id: int | None = None,
        expires_at: str | None = None,
    ) -> Plain:
        _may_admin(caller)
        secret = f"er_{secrets.token_urlsafe(24)}"
        with Session(self.engine) as session:
            if user_id is not None and session.get(User, user_id) is None:
                raise UnknownNameError(f"Unknown user '{user_id}'.")
            row = ApiKey(
                name=name,
                prefix=secret[:7],
                sha256=hashlib.sha256(secret.encode()).hexdigest(),
                scopes=list(scopes),
                projects=None if projects is None else list(projects),
                user_id=user_id,
                created_at=now(),
                expires_at=datetime.fromisoformat(expires_at) if expires_at else None,
            )
            session.add(row)
            session.commit()
            key_id = row.id
        return self._key(key_id) | {"key": secret}

    def revoke_key(self, caller: Caller, key_id: int) -> Plain:
        _may_admin(caller)
        with Session(self.engine) as session:
            row = session.get(ApiKey, key_id)
            if row is None:
                raise UnknownNameError(f"Unknown key '{key_id}'.")
            row.revoked_at = now()
            session.commit()
        return self._key(key_id)

    # Datasets

    def index_datasets(self, found: Mapping[str, Plain | None]) -> None:
        with self.engine.begin() as connection:
            index_datasets(Transaction(connection, now(), 0), found)

    # What drivers tell

    def record(self, job_id: int, attempt: int, events: Any) -> int:
        return 0

    def admission(self, job_id: int, attempt: int) -> Plain:
        return {"admitted": True, "reason": ""}

    def wait_for_events(self, after_seq: int, timeout_s: float) -> int:
        ends_at = time.monotonic() + timeout_s
        while (newest := self.queries.newest_seq()) <= after_seq and time.monotonic() < ends_at and not self.closed:
            time.sleep(0.01)
        return newest

    def health(self) -> Plain:
        return {
            "status": "ok" if self.healthy else "degraded",
            "parts": {"queue": {"ok": self.healthy, "message": ""}},
        }

    # For tests

    def happen(self, job_id: int, kind: str, data: Plain | None = None, phase: Phase | None = None) -> None:
        """An event, as a driver would tell it."""
        with self._lock, Session(self.engine) as session:
            job = session.get(TrainingJob, job_id)
            assert job is not None
            if phase is not None:
                job.phase, job.status = phase, phase.status
                job.version += 1
            self._say(session, job, kind, data or {})
            session.commit()

    def fill(self, job_id: int, *, epochs: int = 3, lines: int = 5) -> None:
        """Metrics, log lines and one attempt."""
        with Session(self.engine) as session:
            session.add(
                Attempt(job_id=job_id, number=1, submission_id=f"{job_id}-1", state="running", created_at=now())
            )
            session.add_all(
                Metric(job_id=job_id, key=key, epoch=epoch, value=epoch / 10, attempt=1, time=now())
                for key in ("loss", "accuracy")
                for epoch in range(1, epochs + 1)
            )
            session.add_all(
                LogRow(job_id=job_id, attempt=1, rank=0, time=now(), text=f"line {number}") for number in range(lines)
            )
            session.commit()

    def print_line(self, job_id: int, rank: int, text: str) -> None:
        with Session(self.engine) as session:
            session.add(LogRow(job_id=job_id, attempt=1, rank=rank, time=now(), text=text))
            session.commit()

    def key(self, name: str, scopes: list[str], projects: list[str] | None = None, **fields: Any) -> str:
        return str(self.create_key(SYSTEM, name=name, scopes=scopes, projects=projects, **fields)["key"])

    def _move(self, caller: Caller, job_id: int, phase: Phase | None) -> Plain:
        _may_write(caller)
        with self._lock, Session(self.engine) as session:
            job = self._job(session, caller, job_id)
            current = Phase(job.phase)
            following = phases.resume(current) if phase is None else phases.advance(current, phase)
            job.phase, job.status = following, following.status
            job.queued_at = now() if following == Phase.QUEUED else job.queued_at
            job.version += 1
            self._say(session, job, "phase", {"phase": following})
            session.commit()
        return self._view(job_id)

    def _say(self, session: Session, job: TrainingJob, kind: str, data: Plain) -> None:
        session.add(Event(job_id=job.id, project_id=job.project_id, attempt=None, type=kind, time=now(), data=data))

    def _job(self, session: Session, caller: Caller, job_id: int) -> TrainingJob:
        job = session.get(TrainingJob, job_id)
        if job is None or job.deleted_at is not None or not caller.sees(job.project_id):
            raise unknown_job(job_id)
        return job

    def _view(self, job_id: int) -> Plain:
        return self.queries.get_job(job_id).model_dump(mode="json")

    def _project(self, name: str) -> Plain:
        return next(_plain(found) for found in self.queries.projects() if found.name == name)

    def _key(self, key_id: int) -> Plain:
        return next(_plain(found) for found in self.queries.keys() if found.id == key_id)  # noqa: SIM118 - no mapping


def _plain(view: ProjectView | UserView | KeyView) -> Plain:
    return view.model_dump(mode="json")


def _may_write(caller: Caller) -> None:
    if not caller.may_write:
        raise ForbiddenError("This key may not write.")


def _may_admin(caller: Caller) -> None:
    if not caller.is_admin:
        raise ForbiddenError("This key is no admin.")
