"""What the control plane refuses, as errors that cross processes and HTTP alike."""

from __future__ import annotations

from eagleray.contract.errors import EaglerayError


class ForbiddenError(EaglerayError):
    """The caller's key lacks the scope."""

    code = "forbidden"
    http_status = 403


class ConflictError(EaglerayError):
    """The request contradicts what is there: a name that is taken, or an idempotency key used for something else."""

    code = "conflict"
    http_status = 409


class PreconditionError(EaglerayError):
    """What the caller wants to change has changed since it was read (`If-Match`)."""

    code = "precondition"
    http_status = 412


class FencedError(EaglerayError):
    """The attempt is no longer the job's: a newer one exists, or the job was cancelled. Its driver must end at once."""

    code = "fenced"
    http_status = 409


class DatabaseError(EaglerayError):
    """The database is damaged, of a newer release, or cannot be reached."""

    code = "database"
    exit_code = 10
    http_status = 503


class UnusableDatabaseError(DatabaseError):
    """Damaged, or a newer release's: it stays so until someone does something about it."""


class DatabaseBusyError(DatabaseError):
    """Another process holds the database; worth another try.

    Attributes:
        retry_after_s: how long to wait before it.
    """

    code = "database-busy"
    retry_after_s = 5


class RejectedError(EaglerayError):
    """What was sent cannot be kept as it is, and sending it again would end the same."""

    code = "rejected"
    http_status = 422


class InternalError(EaglerayError):
    """A fault of the control plane's own; its log has the whole of it."""

    code = "internal"
    http_status = 500


class ControlPlaneAwayError(EaglerayError):
    """The control plane does not answer, or there is none on this cluster."""

    code = "control-plane-away"
    exit_code = 8
    http_status = 503
    retry_after_s = 5
