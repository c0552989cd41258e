"""Copies of a SQLite database: taken while it is written, checked, and put back. PostgreSQL has `pg_dump`."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy.engine import URL

from eagleray.control.database.opening import damaged
from eagleray.control.database.ownership import FileOwnership
from eagleray.control.errors import DatabaseError


def back_up(address: URL, target: Path) -> None:
    """Write a whole, checked copy to `target`, which must not exist; the control plane may go on meanwhile.

    Raises:
        DatabaseError: there is no database, `target` exists, or what was copied is damaged.
    """
    source = _file(address)
    if not source.is_file():
        raise DatabaseError(f"There is no database at {source}.", "Start the control plane first: eagleray up")
    if target.exists():
        raise DatabaseError(f"{target} exists.", "Name a new file.")
    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(part)) as new:
        old.backup(new)
    part.chmod(0o600)  # hashes of keys, and what jobs printed
    verify(part)
    part.replace(target)


def verify(path: Path) -> None:
    """Read a database file through. Raises DatabaseError."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            faults = [row[0] for row in connection.execute("PRAGMA integrity_check(3)")]
            known = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'training_jobs'").fetchone()[0]
    except sqlite3.DatabaseError as error:
        raise damaged(path, str(error)) from error
    if faults != ["ok"]:
        raise damaged(path, "; ".join(faults))
    if not known:
        raise DatabaseError(f"{path} is no database of eagleray.", "Name a file that `eagleray database backup` wrote.")


def restore(address: URL, backup: Path) -> Path | None:
    """Put `backup` in the database's place; where the old one was moved to, if there was one.

    Raises:
        DatabaseError: the backup is damaged, or a control plane runs (DatabaseBusyError).
    """
    target = _file(address)
    if not backup.is_file():
        raise DatabaseError(f"There is no file {backup}.", "Name a file that `eagleray database backup` wrote.")
    verify(backup)
    target.parent.mkdir(parents=True, exist_ok=True)
    owner = FileOwnership(target)
    owner.acquire(1.0)
    try:
        aside = None
        if target.exists():
            aside = target.with_name(f"{target.name}.{datetime.now(UTC):%Y%m%dT%H%M%S}")
            for suffix in ("", "-wal", "-shm"):
                if (old := Path(f"{target}{suffix}")).exists():
                    old.rename(f"{aside}{suffix}")
        part = target.with_name(f".{target.name}.part")
        with closing(sqlite3.connect(backup)) as old_file, closing(sqlite3.connect(part)) as new:
            old_file.backup(new)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(target)
        return aside
    finally:
        owner.release()


def _file(address: URL) -> Path:
    if address.get_backend_name() != "sqlite":
        raise DatabaseError(f"This is for SQLite; DATABASE_URL names {address.get_backend_name()}.", "Try: pg_dump")
    return Path(str(address.database))
