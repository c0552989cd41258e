"""The writing side of the control plane: what the HTTP API, the CLI and the drivers may ask of it.

Arguments and results are plain data, errors are picklable, so the same interface stands in one process and across the
actor's border.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Plain = dict[str, Any]
SCOPES = ("read", "write", "admin")


@dataclass(frozen=True)
class Caller:
    """Who asks.

    Attributes:
        scopes: of `SCOPES`; `admin` implies the others.
        projects: the projects that exist for this caller; None: all, and jobs without a project.
    """

    key_id: int | None
    user_id: int | None
    scopes: frozenset[str]
    projects: frozenset[str] | None
    name: str

    @property
    def is_admin(self) -> bool:
        return "admin" in self.scopes

    @property
    def may_write(self) -> bool:
        return self.is_admin or "write" in self.scopes

    def sees(self, project: str | None) -> bool:
        return self.projects is None or project in self.projects


# Drivers, recovery and `eagleray run` on the cluster itself: whoever reaches the actor owns the cluster anyway.
SYSTEM = Caller(None, None, frozenset({"admin"}), None, "system")


class Commands(Protocol):
    """Every method returns after its transaction is on disk.

    Raises (all of them): ControlPlaneAwayError, DatabaseBusyError; ForbiddenError where a scope is missing;
    UnknownNameError for what does not exist or belongs to a project that the caller cannot see.
    """

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
        """A new job as `JobView`.

        Args:
            start: queue it at once.
            idempotency_key: the same key with the same body gives the same job; with another body ConflictError.
            submission_id: a Ray Job that runs already and becomes attempt 1 once it is admitted (see `admission`).

        Raises:
            ConfigError: names every wrong key of `spec`.
        """
        ...

    def would_wait(self, caller: Caller, spec: Plain, priority: int = 0) -> Plain:
        """Whether a job of `spec`, queued now, would wait, and for what: `{"would_wait": bool, "reason": str}`.

        Nothing is made. Raises ConfigError: names every wrong key of `spec`.
        """
        ...

    def start_job(self, caller: Caller, job_id: int) -> Plain:
        """Queue a job that is `created`; one that is queued or running already is left as it is."""
        ...

    def stop_job(self, caller: Caller, job_id: int) -> Plain:
        """End gracefully, with a checkpoint; the job ends as `cancelled` and can be resumed."""
        ...

    def cancel_job(self, caller: Caller, job_id: int) -> Plain:
        """End at once."""
        ...

    def resume_job(self, caller: Caller, job_id: int, *, epochs: int | None = None) -> Plain:
        """Queue a finished job again, from its last committed checkpoint; `epochs` in all, to train on."""
        ...

    def retry_job(self, caller: Caller, job_id: int) -> Plain:
        """Queue a failed job again with fresh failure budgets."""
        ...

    def delete_job(self, caller: Caller, job_id: int) -> Plain:
        """Forget a job that is not active, with its files; `{"id", "deleted": true}`."""
        ...

    def clone_job(
        self,
        caller: Caller,
        job_id: int,
        changes: Plain,
        *,
        start: bool = False,
        idempotency_key: str | None = None,
    ) -> Plain:
        """A new job with the spec of another, changed; `parent` of the new one is `job_id`."""
        ...

    def set_priority(self, caller: Caller, job_id: int, priority: int, *, if_match: str | None = None) -> Plain:
        """Change the priority of a job that has not started; `if_match` is the etag that was read."""
        ...

    def create_project(
        self, caller: Caller, name: str, *, quota_jobs: int | None = None, quota_gpus: float | None = None
    ) -> Plain: ...

    def update_project(
        self,
        caller: Caller,
        name: str,
        *,
        quota_jobs: int | None = None,
        quota_gpus: float | None = None,
        if_match: str | None = None,
    ) -> Plain:
        """Set both quotas; None: no limit."""
        ...

    def delete_project(self, caller: Caller, name: str) -> Plain:
        """ConflictError while it has jobs."""
        ...

    def create_user(self, caller: Caller, name: str, *, projects: Sequence[str] | None = None) -> Plain: ...

    def delete_user(self, caller: Caller, user_id: int) -> Plain:
        """Its keys are revoked in the same transaction."""
        ...

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
        """A `KeyView` and, this once, the secret as `key`. `expires_at` is ISO 8601 with its offset."""
        ...

    def revoke_key(self, caller: Caller, key_id: int) -> Plain: ...

    def index_datasets(self, found: Mapping[str, Plain | None]) -> None:
        """Have the table of datasets say of these, by id, what the store says; None: it is gone."""
        ...

    def record(self, job_id: int, attempt: int, events: Sequence[Plain]) -> int:
        """What a driver has to tell: events `{"seq", "type", ...}` in order, `seq` counting from 1 per attempt.

        Returns:
            The highest `seq` that is kept; what was sent twice counts once.

        Raises:
            FencedError: the attempt has been superseded.
        """
        ...

    def admission(self, job_id: int, attempt: int) -> Plain:
        """For a Ray Job that waits for its turn: `{"admitted": bool, "reason": str}`. Raises FencedError."""
        ...

    def wait_for_events(self, after_seq: int, timeout_s: float) -> int:
        """The newest event's `seq`, as soon as it is above `after_seq`, or after `timeout_s`."""
        ...

    def health(self) -> Plain:
        """`{"status": "ok" | "degraded", "parts": {name: {"ok": bool, "message": str}}, …}`."""
        ...


def plain_caller(caller: Caller) -> Mapping[str, Any]:
    """What of a caller goes into records and logs."""
    return {"name": caller.name, "key_id": caller.key_id, "user_id": caller.user_id}
