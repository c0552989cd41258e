"""The only thread that writes: what waits is committed together, and every caller returns after that commit."""

from __future__ import annotations

import contextlib
import functools
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, delete, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError, ProgrammingError, StatementError

from eagleray.contract.errors import EaglerayError
from eagleray.control.answering import one_line
from eagleray.control.database.opening import explained
from eagleray.control.database.ownership import Ownership, ownership_of
from eagleray.control.database.tables import Event, LogRow, Metric
from eagleray.control.errors import ControlPlaneAwayError, DatabaseBusyError, DatabaseError, RejectedError
from eagleray.storage.failpoints import failpoint

T = TypeVar("T")
Clock = Callable[[], datetime]
# Of these a job keeps its newest only: they are news, not history.
TRANSIENT = frozenset({"progress", "log"})
GROUP = 512
_TRIES = 4
# On a connection's own notes: its writer knows the numbers that events have.
_READ = "eagleray_numbers_read"
logger = logging.getLogger(__name__)


class Transaction:
    """What one group of commands writes. Rows of the bulky tables are collected and inserted together."""

    def __init__(self, connection: Connection, now: datetime, next_seq: int) -> None:
        self.connection = connection
        self.now = now
        self.next_seq = next_seq
        self.events: list[dict[str, Any]] = []
        self.metrics: list[dict[str, Any]] = []
        self.lines: list[dict[str, Any]] = []
        # Whether the scheduler has something new to look at.
        self.stirred = False

    def event(
        self, job_id: int, project: str | None, kind: str, data: dict[str, Any], attempt: int | None = None
    ) -> None:
        self.events.append(
            {
                "seq": self.next_seq,
                "job_id": job_id,
                "project_id": project,
                "attempt": attempt,
                "type": kind,
                "time": self.now,
                "data": data,
            }
        )
        self.next_seq += 1

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """One command: all of it or nothing."""
        before = len(self.events), len(self.metrics), len(self.lines), self.stirred
        try:
            with self.connection.begin_nested():
                yield
        except BaseException:
            del self.events[before[0] :], self.metrics[before[1] :], self.lines[before[2] :]
            self.stirred = before[3]
            raise

    def flush(self, transient: dict[tuple[int, str], int]) -> None:
        newest: dict[tuple[int, str], int] = {
            (event["job_id"], event["type"]): event["seq"] for event in self.events if event["type"] in TRANSIENT
        }
        kept = [
            event
            for event in self.events
            if event["type"] not in TRANSIENT or newest[event["job_id"], event["type"]] == event["seq"]
        ]
        if old := [transient[key] for key in newest if key in transient]:
            self.connection.execute(delete(Event).where(Event.seq.in_(old)))
        if kept:
            self.connection.execute(insert(Event), kept)
        if self.lines:
            self.connection.execute(insert(LogRow), self.lines)
        if self.metrics:
            rows = {(row["job_id"], row["key"], row["epoch"]): row for row in self.metrics}
            self.connection.execute(_upsert_metrics(self.connection.dialect.name), list(rows.values()))
        transient.update(newest)


@functools.cache
def _upsert_metrics(dialect: str) -> Any:
    """Of two attempts' values for one epoch the newer attempt's stays."""
    into: Any = postgresql.insert(Metric) if dialect == "postgresql" else sqlite.insert(Metric)
    return into.on_conflict_do_update(
        index_elements=["job_id", "key", "epoch"],
        set_={name: into.excluded[name] for name in ("value", "attempt", "time")},
        where=into.excluded.attempt >= Metric.attempt,
    )


Works = list[tuple[Callable[[Transaction], Any], Future[Any]]]
Results = list[tuple[Future[Any], Any, BaseException | None]]


class Writer:
    """Use `run` from any thread."""

    def __init__(
        self, engine: Engine, clock: Clock, *, timeout_s: float = 30.0, ownership: Ownership | None = None
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._timeout_s = timeout_s
        self._ownership = ownership or ownership_of(engine)
        self._queue: queue.SimpleQueue[tuple[Callable[[Transaction], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._committed = threading.Condition()
        self._seq = 0
        self._transient: dict[tuple[int, str], int] = {}
        self._on_stir: Callable[[], None] = lambda: None
        self._connection: Connection | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="eagleray-writer", daemon=True)

    def start(self, on_stir: Callable[[], None], *, owner_timeout_s: float = 30.0) -> None:
        """Raises DatabaseBusyError where another control plane keeps the database for `owner_timeout_s`."""
        self._on_stir = on_stir
        deadline = time.monotonic() + owner_timeout_s
        self._ownership.acquire(owner_timeout_s)
        while True:
            # The very connection that will write: on PostgreSQL the lock belongs to its session.
            connection = self._connected()
            try:
                with connection.begin():
                    self._prepare(connection)
                break
            except DatabaseBusyError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.2)
        self._thread.start()

    def run(self, work: Callable[[Transaction], T]) -> T:
        """What `work` returns, once it is on disk; `work` may be run again after a lost connection.

        Raises:
            EaglerayError: what `work` raised; nothing of it was written.
            RejectedError: it raised anything else, or the database does not take its values.
            DatabaseBusyError: nothing was written, or it is not known in time.
        """
        if self._closed:
            raise ControlPlaneAwayError("The control plane is shutting down.", "Try again in a few seconds.")
        future: Future[T] = Future()
        self._queue.put((work, future))
        try:
            return future.result(self._timeout_s)
        except (FutureTimeoutError, CancelledError):
            future.cancel()
            raise DatabaseBusyError(
                f"The database has not taken the change within {self._timeout_s:g} s.", "Try again in a few seconds."
            ) from None

    @property
    def newest_seq(self) -> int:
        return self._seq

    def wait(self, after_seq: int, timeout_s: float) -> int:
        """The newest event's number, as soon as it is above `after_seq`."""
        with self._committed:
            self._committed.wait_for(lambda: self._seq > after_seq or self._closed, timeout_s)
            return self._seq

    def close(self) -> None:
        self._closed = True
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join(self._timeout_s)
        with self._committed:
            self._committed.notify_all()
        self._drop_connection()
        self._ownership.release()

    def _serve(self) -> None:
        while True:
            first = self._queue.get()
            group = [first]
            while len(group) < GROUP and not self._queue.empty():
                group.append(self._queue.get())
            works = [item for item in group if item is not None and item[1].set_running_or_notify_cancel()]
            if works:
                self._commit(works)
            if None in group:
                return

    def _commit(self, works: Works) -> None:
        results: Results = []
        for number in range(1, _TRIES + 1):
            try:
                results = self._attempt(works)
                break
            except (StatementError, ValueError, TypeError, ArithmeticError, EaglerayError, OSError) as error:
                self._drop_connection()
                if not is_connections(error) and len(works) > 1:
                    # One of them has values that the database refuses when all are written together at the end.
                    for work in works:
                        self._commit([work])
                    return
                if not is_connections(error):
                    results = [(future, None, rejected(error)) for _, future in works]
                    break
                if number == _TRIES or not _is_passing(error):
                    reason = explained(error, self._engine.url) if isinstance(error, DBAPIError) else error
                    results = [(future, None, reason) for _, future in works]
                    break
                time.sleep(0.2 * 2**number)
            except BaseException as error:
                self._drop_connection()
                logger.exception("A group of commands failed.")
                results = [(future, None, error) for _, future in works]
                break
        for future, result, failure in results:
            if failure is not None:
                future.set_exception(failure)
            else:
                future.set_result(result)

    def _attempt(self, works: Works) -> Results:
        connection = self._connected()
        results: Results = []
        with connection.begin():
            self._prepare(connection)
            transaction = Transaction(connection, self._clock(), self._seq + 1)
            for work, future in works:
                try:
                    with transaction.savepoint():
                        results.append((future, work(transaction), None))
                except Exception as error:
                    if is_connections(error):
                        raise
                    # Its caller's affair; the others of the group are committed.
                    results.append((future, None, error if isinstance(error, EaglerayError) else rejected(error)))
            transient = dict(self._transient)
            transaction.flush(transient)
            failpoint("control.before_commit")
        failpoint("control.after_commit")
        self._transient = transient
        with self._committed:
            self._seq = transaction.next_seq - 1
            self._committed.notify_all()
        if transaction.stirred:
            self._on_stir()
        return results

    def _prepare(self, connection: Connection) -> None:
        """At the start of every transaction: whether we may write, and on a new connection where we are.

        Whether the last commit before a connection was lost has happened, only the database knows.
        """
        self._ownership.check(connection)
        if connection.info.get(_READ):
            return
        newest = connection.execute(select(func.coalesce(func.max(Event.seq), 0))).scalar_one()
        self._seq = max(self._seq, newest)
        rows = connection.execute(select(Event.job_id, Event.type, Event.seq).where(Event.type.in_(TRANSIENT)))
        self._transient = {(row.job_id, row.type): row.seq for row in rows}
        connection.info[_READ] = True

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed or self._connection.invalidated:
            self._connection = self._engine.connect()
        return self._connection

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # Not back to the pool: a session there would go on holding the lock against our next one.
            with contextlib.suppress(DBAPIError):
                connection.invalidate()
            with contextlib.suppress(DBAPIError):
                connection.close()


def is_connections(error: BaseException) -> bool:
    """Whether it is about the database or the way to it, and not about what one command wants to write."""
    if isinstance(error, DBAPIError):
        refused = isinstance(error, DataError | IntegrityError | ProgrammingError)
        return error.connection_invalidated or not refused
    return isinstance(error, OSError | DatabaseError)


def rejected(error: BaseException) -> RejectedError:
    """In our own words, without the statement and its values."""
    cause = error.orig if isinstance(error, StatementError) and error.orig is not None else error
    return RejectedError(f"This cannot be kept: {type(cause).__name__}: {one_line(cause)}", "Change it and try again.")


def _is_passing(error: BaseException) -> bool:
    """Whether the same group may go through in a moment: the server restarted, or took another transaction first."""
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    state = getattr(error.orig, "sqlstate", None) or ""
    # Serialization failure, deadlock, connection errors, shutdown, cannot connect now, read-only after a failover.
    passing = ("40001", "40P01", "08", "57P", "25006")
    return isinstance(error, OperationalError) and (state.startswith(passing) or _is_connection_lost(error))


def _is_connection_lost(error: OperationalError) -> bool:
    return type(error.orig).__module__.startswith("psycopg") and getattr(error.orig, "sqlstate", None) is None
