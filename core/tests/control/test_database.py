"""The database opens as what it is, or says what is wrong with it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from eagleray.control.commands import SYSTEM
from eagleray.control.database import migrating
from eagleray.control.database.opening import database_url, open_database, open_read_only
from eagleray.control.database.tables import Base
from eagleray.control.errors import ControlPlaneAwayError, DatabaseBusyError, DatabaseError, RejectedError
from eagleray.control.plane import ControlPlane
from eagleray.control.queries import Queries
from eagleray.control.writing import Transaction
from eagleray.jobs.phases import Phase

from .conftest import House, check


def test_the_migrations_make_the_tables_of_the_code(tmp_path: Path) -> None:
    engine = open_database(None, tmp_path)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_commits_are_on_disk_before_they_return(tmp_path: Path) -> None:
    engine = open_database(None, tmp_path)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2, "FULL"
    engine.dispose()


def test_a_newer_releases_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    engine = open_database(None, tmp_path)
    with engine.connect() as connection, connection.begin():
        connection.execute(text("UPDATE alembic_version SET version_num = 'r9999'"))
    engine.dispose()
    with pytest.raises(DatabaseError, match="schema 'r9999', which eagleray"):
        open_database(None, tmp_path)


def test_a_migration_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from alembic.operations import Operations

    made = Operations.create_table

    def failing(self: Operations, name: str, *columns: Any, **options: Any) -> Any:
        if name == "projects":
            raise RuntimeError("power cut")
        return made(self, name, *columns, **options)

    path = tmp_path / "control" / "eagleray.db"
    path.parent.mkdir()
    monkeypatch.setattr(Operations, "create_table", failing)
    with pytest.raises(RuntimeError, match="power cut"):
        open_database(None, tmp_path)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == []
    connection.close()
    monkeypatch.undo()
    open_database(None, tmp_path).dispose()


def _garbage(path: Path) -> None:
    path.write_bytes(b"this is no database at all, " * 500)


def _half(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[5000:30000] = b"\xff" * 25000
    path.write_bytes(content)
    for name in ("-wal", "-shm"):
        Path(f"{path}{name}").unlink(missing_ok=True)


@pytest.mark.parametrize("damage", [_garbage, _half], ids=["garbage", "half"])
def test_a_damaged_file_is_refused_and_the_way_back_named(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    open_database(None, tmp_path).dispose()
    path = tmp_path / "control" / "eagleray.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    damage(path)
    before = path.read_bytes()
    with pytest.raises(DatabaseError, match="is damaged") as caught:
        open_database(None, tmp_path)
    assert "eagleray database restore" in caught.value.hint
    assert path.read_bytes() == before


def test_a_replica_can_only_read(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="no database at"):
        open_read_only(None, tmp_path)
    engine = open_database(None, tmp_path)
    reader = open_read_only(None, tmp_path)
    with reader.connect() as connection, pytest.raises(Exception, match="readonly"):
        connection.execute(text("DELETE FROM users"))
    reader.dispose()
    engine.dispose()


def test_readers_do_not_wait_for_a_writer(house: House) -> None:
    job_id = house.create(start=False)
    with house.engine.connect() as connection, connection.begin():
        connection.execute(text("UPDATE users SET name = 'x'"))
        assert house.queries.get_job(job_id).id == job_id


def test_an_address_never_shows_its_password(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError) as caught:
        open_database("postgresql://ada:secret@127.0.0.1:9/none", tmp_path)
    assert "secret" not in str(caught.value)
    for wrong in ("mysql://host/x", "no address", "sqlite://"):
        with pytest.raises(DatabaseError):
            database_url(tmp_path, wrong)


def test_a_second_control_plane_waits_and_is_refused(house: House) -> None:
    second = ControlPlane(house.engine, house.executor, house.store, check, settings=house.settings)
    with pytest.raises(DatabaseBusyError, match="Another control plane"):
        second.start(owner_timeout_s=0.2, dispatch=False)


def test_another_writers_lock_is_waited_for_and_then_said(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = house.create(start=False)
    path = house.folder / "eagleray.db"
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseBusyError) as caught:
        house.plane.start_job(SYSTEM, job_id)
    assert caught.value.retry_after_s == 5
    assert house.job(job_id).phase is Phase.CREATED, "reading goes on, and nothing was written"
    blocker.execute("ROLLBACK")
    blocker.close()
    assert house.plane.start_job(SYSTEM, job_id)["phase"] == "queued"


def test_one_refused_command_does_not_undo_those_beside_it(house: House) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from eagleray.contract.errors import EaglerayError

    ids = [house.create(start=False) for _ in range(10)]

    def command(number: int) -> bool:
        try:
            house.plane.start_job(SYSTEM, ids[number] if number % 2 else 9999)
        except EaglerayError:
            return False
        return True

    with ThreadPoolExecutor(10) as pool:
        assert list(pool.map(command, range(10))) == [False, True] * 5
    assert [house.job(job_id).phase == "queued" for job_id in ids] == [False, True] * 5


def test_a_closed_control_plane_says_so(house: House) -> None:
    house.plane.close()
    with pytest.raises(ControlPlaneAwayError, match="shutting down"):
        house.create()
    house.start()


def test_a_revision_is_reached_from_every_older_one(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'x.db'}")
    migrating.migrate(engine)
    migrating.migrate(engine)
    engine.dispose()


def test_a_database_that_does_not_answer_is_said_in_our_own_words(tmp_path: Path) -> None:
    engine = create_engine("postgresql+psycopg://ada:secret@127.0.0.1:9/none")
    with pytest.raises(DatabaseError) as caught:
        Queries(engine).get_job(1)
    assert "secret" not in str(caught.value)


def test_after_a_commit_whose_acknowledgement_was_lost_writing_goes_on(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.create(start=False)
    monkeypatch.setenv("EAGLERAY_FAILPOINTS", "control.after_commit:raise")
    with pytest.raises(RuntimeError, match="after_commit"):
        house.plane.create_project(SYSTEM, "birds")
    with pytest.raises(RuntimeError, match="after_commit"):
        house.create()
    monkeypatch.delenv("EAGLERAY_FAILPOINTS")
    job_id, driver = house.running()
    for step in (1, 2):
        driver.say({"type": "progress", "epoch": 1, "step": step, "steps": 2, "metrics": {}})
    assert house.types(job_id).count("progress") == 1
    seqs = [event.seq for event in house.queries.events()]
    assert len(seqs) == len(set(seqs)) and [project.name for project in house.queries.projects()] == ["birds"]


@pytest.mark.parametrize(
    "text", ["\ud800", 1 << 80, object()], ids=["not unicode", "a number without end", "not a value"]
)
def test_what_cannot_be_kept_is_refused_and_those_beside_it_are_kept(house: House, text: Any) -> None:
    """All rows of a group are inserted together, at its end."""
    before, kept, after = Future[int](), Future[int](), Future[int]()

    def bad(transaction: Transaction) -> int:
        transaction.event(1, None, "kind", {})
        transaction.lines.append({"job_id": 1, "attempt": 1, "rank": 0, "time": transaction.now, "text": text})
        return 1

    def good(transaction: Transaction) -> int:
        transaction.event(2, None, "kind", {})
        return 2

    house.plane._writer._commit([(bad, before), (good, kept), (bad, after)])
    assert kept.result(0) == 2
    for future in (before, after):
        with pytest.raises(RejectedError, match="This cannot be kept"):
            future.result(0)
    assert [event.job_id for event in house.queries.events()] == [2]


def test_a_command_that_fails_by_itself_takes_nobody_with_it(house: House) -> None:
    def bad(transaction: Transaction) -> None:
        transaction.event(1, None, "kind", {})
        raise KeyError("epoch")

    with pytest.raises(RejectedError, match="KeyError: 'epoch'"):
        house.plane._writer.run(bad)
    assert house.queries.events() == []


def test_counting_goes_on_after_the_ids_that_an_older_release_gave_out(tmp_path: Path) -> None:
    path = tmp_path / "control" / "eagleray.db"
    path.parent.mkdir()
    engine = create_engine(f"sqlite:///{path}")
    migrating.migrate(engine, "r0001")
    with engine.connect() as connection, connection.begin():
        connection.execute(text("INSERT INTO users (id, name, created_at) VALUES (7, 'ada', '2026-01-01')"))
    engine.dispose()
    engine = open_database(None, tmp_path)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT name, value FROM counters ORDER BY name")).all()
    engine.dispose()
    assert [tuple(row) for row in rows] == [("api_keys", 0), ("users", 7)]
