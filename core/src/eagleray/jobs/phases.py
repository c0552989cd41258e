"""The phases of a job, and the one table of what may follow what."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from eagleray.contract.errors import EaglerayError


class IllegalPhaseError(EaglerayError):
    """A job was to enter a phase that cannot follow its own."""

    code = "phase"
    http_status = 409


class JobStatus(StrEnum):
    """The coarser value that clients know."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Phase(StrEnum):
    CREATED = "created"
    QUEUED = "queued"
    PREPARING = "preparing"
    RUNNING = "running"
    STOPPING = "stopping"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def status(self) -> JobStatus:
        return _STATUS[self]

    @property
    def is_terminal(self) -> bool:
        """Whether the job stays here unless someone resumes it."""
        return self in (Phase.COMPLETED, Phase.FAILED, Phase.CANCELLED)


_STATUS = {
    Phase.CREATED: JobStatus.PENDING,
    Phase.QUEUED: JobStatus.PENDING,
    Phase.PREPARING: JobStatus.PENDING,
    Phase.RUNNING: JobStatus.RUNNING,
    Phase.STOPPING: JobStatus.RUNNING,
    Phase.COMPLETED: JobStatus.COMPLETED,
    Phase.FAILED: JobStatus.FAILED,
    Phase.CANCELLED: JobStatus.CANCELLED,
}

_ENDS = frozenset({Phase.FAILED, Phase.CANCELLED})
# A lost attempt goes back to `queued`, or to `preparing` where its place on the cluster is kept.
# A graceful stop ends as `cancelled` with a resumable record; it may also finish first.
# From a terminal phase only `resume` leads on.
TRANSITIONS: Mapping[Phase, frozenset[Phase]] = {
    Phase.CREATED: _ENDS | {Phase.QUEUED},
    Phase.QUEUED: _ENDS | {Phase.PREPARING},
    Phase.PREPARING: _ENDS | {Phase.QUEUED, Phase.RUNNING, Phase.STOPPING},
    Phase.RUNNING: _ENDS | {Phase.QUEUED, Phase.PREPARING, Phase.STOPPING, Phase.COMPLETED},
    Phase.STOPPING: _ENDS | {Phase.COMPLETED},
    Phase.COMPLETED: frozenset({Phase.QUEUED}),
    Phase.FAILED: frozenset({Phase.QUEUED}),
    Phase.CANCELLED: frozenset({Phase.QUEUED}),
}


def advance(current: Phase, next_phase: Phase) -> Phase:
    """`next_phase`, where it may follow `current`.

    Raises:
        IllegalPhaseError: it may not, or `current` is terminal (see `resume`).
    """
    if current.is_terminal or next_phase not in TRANSITIONS[current]:
        raise _illegal(current, next_phase)
    return next_phase


def resume(current: Phase) -> Phase:
    """The phase in which a finished job starts again.

    Raises:
        IllegalPhaseError: the job is not finished.
    """
    if not current.is_terminal:
        raise IllegalPhaseError(f"The job is {current}, so it cannot be resumed.", "Stop it, or wait for its end.")
    (again,) = TRANSITIONS[current]
    return again


def _illegal(current: Phase, next_phase: Phase) -> IllegalPhaseError:
    if current.is_terminal:
        return IllegalPhaseError(f"The job is {current} and cannot become {next_phase}.", "Resume it to go on.")
    valid = ", ".join(sorted(TRANSITIONS[current]))
    return IllegalPhaseError(f"A job that is {current} cannot become {next_phase}.", f"It can become: {valid}.")
