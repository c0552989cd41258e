"""Rows of jobs and attempts as they change within a transaction: one UPDATE each, however much happens."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, Table, Update, bindparam, select, update

from eagleray.contract.errors import UnknownNameError
from eagleray.control.database.tables import Attempt, TrainingJob
from eagleray.control.queries import unknown_job
from eagleray.control.writing import Transaction
from eagleray.jobs import phases
from eagleray.jobs.phases import Phase

_JOBS: Table = TrainingJob.__table__  # type: ignore[assignment]
_ATTEMPTS: Table = Attempt.__table__  # type: ignore[assignment]
_KEY = "key_"


def _keyed(table: Table) -> tuple[Select[Any], Update]:
    """How a row is read and changed, made once: making a statement takes longer than SQLite takes to run it."""
    key = [column == bindparam(f"{_KEY}{column.name}") for column in table.primary_key]
    return select(table).where(*key), update(table).where(*key)


class _Row:
    _key: tuple[str, ...]
    _update: Update

    def __init__(self, transaction: Transaction, values: dict[str, Any]) -> None:
        self.transaction = transaction
        self._values = values
        self._changes: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __setitem__(self, name: str, value: Any) -> None:
        if self._values[name] != value:
            self._values[name] = self._changes[name] = value

    def save(self) -> None:
        if self._changes:
            key = {f"{_KEY}{name}": self[name] for name in self._key}
            self.transaction.connection.execute(self._update, {**key, **self._changes})
            self._changes = {}


class JobRow(_Row):
    _key = ("id",)
    _select, _update = _keyed(_JOBS)

    @classmethod
    def load(cls, transaction: Transaction, job_id: int) -> JobRow:
        """Raises UnknownNameError."""
        row = transaction.connection.execute(cls._select, {f"{_KEY}id": job_id}).one_or_none()
        if row is None or row.deleted_at is not None:
            raise unknown_job(job_id)
        return cls(transaction, dict(row._mapping))

    @property
    def phase(self) -> Phase:
        return Phase(self["phase"])

    def advance(self, phase: Phase, message: str = "") -> None:
        """Enter `phase`. Raises IllegalPhaseError."""
        self._enter(phases.advance(self.phase, phase), message)

    def resume(self, message: str) -> None:
        """Queue a finished job again. Raises IllegalPhaseError."""
        self._enter(phases.resume(self.phase), message)
        for name in ("error_message", "hint", "failure_kind", "ended_at"):
            self[name] = None

    def _enter(self, phase: Phase, message: str) -> None:
        now = self.transaction.now
        self["phase"], self["status"], self["reason"] = phase.value, phase.status.value, message
        self["estimated_start_at"] = None
        if phase is Phase.RUNNING and self["started_at"] is None:
            self["started_at"] = now
        if phase.is_terminal:
            self["ended_at"], self["progress"] = now, None
        data = {"phase": phase.value, "status": phase.status.value, "message": message}
        self.event("phase", data, self["current_attempt"] or None)
        self.transaction.stirred = True

    def event(self, kind: str, data: dict[str, Any], attempt: int | None = None) -> None:
        self.transaction.event(self["id"], self["project_id"], kind, data, attempt)

    def warn(self, message: str) -> None:
        if message not in self["warnings"]:
            self["warnings"] = [*self["warnings"], message][-200:]
            self.event("warning", {"message": message}, self["current_attempt"] or None)

    def save(self) -> None:
        if self._changes:
            self._changes["updated_at"] = self._values["updated_at"] = self.transaction.now
            self["version"] = self["version"] + 1
        super().save()


class AttemptRow(_Row):
    _key = ("job_id", "number")
    _select, _update = _keyed(_ATTEMPTS)

    @classmethod
    def load(cls, transaction: Transaction, job_id: int, number: int) -> AttemptRow:
        """Raises UnknownNameError."""
        key = {f"{_KEY}job_id": job_id, f"{_KEY}number": number}
        row = transaction.connection.execute(cls._select, key).one_or_none()
        if row is None:
            raise UnknownNameError(f"Job {job_id} has no attempt {number}.", f"Try: eagleray jobs show {job_id}")
        return cls(transaction, dict(row._mapping))
