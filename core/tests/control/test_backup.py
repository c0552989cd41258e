"""Backups are whole, and put back."""

from __future__ import annotations

from pathlib import Path

import pytest

from eagleray.cli.app import main
from eagleray.control.database.backup import back_up, restore, verify
from eagleray.control.database.opening import database_url
from eagleray.control.errors import DatabaseBusyError, DatabaseError

from .conftest import House


def test_a_backup_taken_while_jobs_are_made_brings_them_back(house: House, tmp_path: Path) -> None:
    address = database_url(tmp_path, f"sqlite:///{house.folder / 'eagleray.db'}")
    kept = house.create(start=False)
    back_up(address, tmp_path / "b.db")
    lost = house.create(start=False)
    with pytest.raises(DatabaseBusyError):
        restore(address, tmp_path / "b.db")
    house.close()
    aside = restore(address, tmp_path / "b.db")
    assert aside is not None and aside.exists()
    house.start()
    assert [view.id for view in house.queries.list_jobs()[0]] == [kept]
    assert house.create(start=False) > lost, "an id that the store has given out is not given out again"


def test_a_backup_never_overwrites_and_is_for_its_owner_only(house: House, tmp_path: Path) -> None:
    address = database_url(tmp_path, f"sqlite:///{house.folder / 'eagleray.db'}")
    back_up(address, tmp_path / "b.db")
    assert (tmp_path / "b.db").stat().st_mode & 0o077 == 0
    with pytest.raises(DatabaseError, match="exists"):
        back_up(address, tmp_path / "b.db")


def test_a_damaged_backup_is_not_put_in_place(house: House, tmp_path: Path) -> None:
    address = database_url(tmp_path, f"sqlite:///{house.folder / 'eagleray.db'}")
    (tmp_path / "b.db").write_bytes(b"nothing" * 1000)
    with pytest.raises(DatabaseError, match="damaged"):
        restore(address, tmp_path / "b.db")
    with pytest.raises(DatabaseError, match="pg_dump"):
        back_up(database_url(tmp_path, "postgresql://host/x"), tmp_path / "c.db")


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from eagleray.control.database.opening import open_database

    monkeypatch.setenv("EAGLERAY_HOME", str(tmp_path))
    monkeypatch.delenv("DATABASE_URL", raising=False)
    assert main(["database", "backup", str(tmp_path / "b.db")]) == 10
    assert "eagleray up" in capsys.readouterr().err
    open_database(None, tmp_path).dispose()
    assert main(["database", "backup", str(tmp_path / "b.db")]) == 0
    assert main(["database", "restore", str(tmp_path / "b.db")]) == 0
    assert main(["database", "check"]) == 0
    verify(tmp_path / "b.db")
