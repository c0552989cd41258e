"""Opens the database: settings that make a commit mean "on disk", checks, and migrations."""

from __future__ import annotations

import json
import math
import os
import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import QueuePool

from eagleray.control.database.migrating import migrate
from eagleray.control.errors import DatabaseBusyError, DatabaseError, UnusableDatabaseError

BUSY_TIMEOUT_S = 5.0
# An engine's execution option: its transactions only read, so they need not wait for the writer.
READING = "eagleray_reading"
RESTORE = "eagleray database restore BACKUP"


def database_url(home: Path, url: str | None = None) -> URL:
    """`url`, else `DATABASE_URL`, else SQLite at `{home}/control/eagleray.db`.

    Raises:
        DatabaseError: it is not a URL, or of a database that is not supported.
    """
    text = url or os.environ.get("DATABASE_URL") or f"sqlite:///{home / 'control' / 'eagleray.db'}"
    try:
        found = make_url(text)
    except ArgumentError:
        # The text may hold a password.
        raise DatabaseError(
            "DATABASE_URL is not a database's address.", "Example: postgresql://user@host/eagleray"
        ) from None
    name = found.get_backend_name()
    if name == "sqlite" and found.database not in (None, "", ":memory:"):
        return found.set(drivername="sqlite")
    if name in ("postgresql", "postgres"):
        return found.set(drivername="postgresql+psycopg")
    raise DatabaseError(f"DATABASE_URL names '{found.drivername}'.", "Valid: sqlite:///FILE, postgresql://…")


def open_database(url: str | None, home: Path) -> Engine:
    """The writer's engine, with the schema of this release.

    Raises:
        DatabaseError: the file is damaged, the server is away, or a newer release has written it.
    """
    address = database_url(home, url)
    if address.get_backend_name() == "sqlite":
        path = Path(str(address.database))
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        engine = _sqlite(address, read_only=False)
    else:
        engine = _postgresql(address)
    try:
        with engine.connect() as connection:
            check(connection)
        migrate(engine)
    except DBAPIError as error:
        engine.dispose()
        raise explained(error, address) from error
    except DatabaseError:
        engine.dispose()
        raise
    return engine


def open_read_only(url: str | None, home: Path) -> Engine:
    """An engine for `Queries`; writes through it are refused by the database.

    Raises:
        DatabaseError: there is no database yet.
    """
    address = database_url(home, url)
    if address.get_backend_name() != "sqlite":
        engine = _postgresql(address)

        @event.listens_for(engine, "connect")
        def _read_only(connection: Any, record: Any) -> None:
            connection.read_only = True

        return engine
    if not Path(str(address.database)).is_file():
        raise DatabaseError(f"There is no database at {address.database}.", "Start the control plane: eagleray up")
    return _sqlite(address, read_only=True)


def dump_json(value: Any) -> str:
    """JSON that every database takes: NaN and infinities become text, which pydantic reads back as floats."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def _postgresql(address: URL) -> Engine:
    return create_engine(address, pool_pre_ping=True, connect_args={"connect_timeout": 10}, json_serializer=dump_json)


def _sqlite(address: URL, *, read_only: bool) -> Engine:
    mode = "?mode=ro" if read_only else "?mode=rwc"
    file = f"file:{Path(str(address.database)).absolute()}{mode}"

    def connect() -> sqlite3.Connection:
        # `None`: transactions begin where we say so, not where the driver guesses.
        return sqlite3.connect(
            file, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=256
        )

    engine = create_engine(
        "sqlite://", creator=connect, poolclass=QueuePool, pool_size=8, max_overflow=32, json_serializer=dump_json
    )

    @event.listens_for(engine, "connect")
    def _settings(connection: sqlite3.Connection, record: Any) -> None:
        if not read_only:
            connection.execute("PRAGMA journal_mode=WAL")
            # With WAL only FULL makes a commit survive a power cut.
            connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        reading = read_only or connection.get_execution_options().get(READING)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def check(connection: Connection) -> None:
    """Read a SQLite file through once.

    Raises:
        DatabaseError: it is damaged; names the way back.
    """
    if connection.dialect.name != "sqlite":
        return
    faults = [row[0] for row in connection.exec_driver_sql("PRAGMA quick_check(3)")]
    if faults != ["ok"]:
        raise damaged(sqlite_file(connection), "; ".join(faults))


def sqlite_file(connection: Connection) -> Path:
    """Where the main database of a SQLite connection lies; attached and temporary ones come after it."""
    rows = connection.exec_driver_sql("PRAGMA database_list").all()
    return Path(rows[0][2])


def damaged(path: object, reason: str) -> UnusableDatabaseError:
    return UnusableDatabaseError(
        f"The database {path} is damaged: {' '.join(reason.split())[:300]}.",
        f"Nothing was changed. Put a backup in its place: {RESTORE}",
    )


def explained(error: DBAPIError, address: URL) -> DatabaseError:
    """The driver's error as a sentence; never with the address's password."""
    text = " ".join(str(error.orig).split())[:300]
    if isinstance(error.orig, sqlite3.OperationalError) and ("locked" in text or "busy" in text):
        return DatabaseBusyError(f"Another process holds the database: {text}.", "Try again in a few seconds.")
    if isinstance(error.orig, sqlite3.OperationalError) and "full" in text:
        return DatabaseBusyError(f"The disk of the database is full: {text}.", "Free space; nothing has been lost.")
    if isinstance(error.orig, sqlite3.DatabaseError) and ("malformed" in text or "not a database" in text):
        return damaged(address.database, text)
    where = address.render_as_string(hide_password=True)
    return DatabaseError(f"The database {where} does not answer as it should: {text}", "Check it, then try again.")
