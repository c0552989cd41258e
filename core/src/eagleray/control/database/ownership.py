"""One control plane at a time: whoever holds the lock writes; it dies with its holder, also by SIGKILL."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine

from eagleray.control.database.opening import sqlite_file
from eagleray.control.errors import DatabaseBusyError

_KEY = 7285108


class Ownership(Protocol):
    def acquire(self, timeout_s: float) -> None:
        """Raises DatabaseBusyError where another control plane has it for that long."""
        ...

    def check(self, connection: Connection) -> None:
        """Called in every transaction. Raises DatabaseBusyError where it has been lost to another one."""
        ...

    def release(self) -> None: ...


class FileOwnership:
    """Beside a SQLite file."""

    def __init__(self, database: Path) -> None:
        self._lock = FileLock(f"{database}.owner")

    def acquire(self, timeout_s: float) -> None:
        try:
            self._lock.acquire(timeout=timeout_s, poll_interval=0.1)
        except Timeout:
            raise _taken() from None

    def check(self, connection: Connection) -> None:
        return None

    def release(self) -> None:
        self._lock.release()


class AdvisoryOwnership:
    """PostgreSQL's advisory lock, of the very session that writes, so that it cannot outlive or miss a write."""

    def acquire(self, timeout_s: float) -> None:
        return None

    def check(self, connection: Connection) -> None:
        if connection.info.get("eagleray_owner"):
            return
        if not connection.exec_driver_sql(f"SELECT pg_try_advisory_lock({_KEY})").scalar_one():
            raise _taken()
        connection.info["eagleray_owner"] = True

    def release(self) -> None:
        return None


def ownership_of(engine: Engine) -> Ownership:
    if engine.dialect.name != "sqlite":
        return AdvisoryOwnership()
    with engine.connect() as connection:
        return FileOwnership(sqlite_file(connection))


def _taken() -> DatabaseBusyError:
    return DatabaseBusyError(
        "Another control plane writes this database.", "There is one per database: stop it, or give this one its own."
    )
