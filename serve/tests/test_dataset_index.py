"""The database's table of datasets, which says what the store says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from eagleray.control.database.tables import DatasetRow
from eagleray.control.errors import ControlPlaneAwayError
from eagleray.registry import DatasetRegistry
from eagleray.settings import Settings
from eagleray.storage.local import LocalStore

from .datasets_over_http import imported
from .fake import FakePlane


def rows(plane: FakePlane) -> dict[str, Any]:
    """The database's table of datasets, by name."""
    with plane.queries.reading() as connection:
        return {row.name: row for row in connection.execute(select(*DatasetRow.__table__.columns))}


def test_the_databases_table_says_what_the_store_says(writer: TestClient, plane: FakePlane, folder: Path) -> None:
    imported(writer, folder)
    shown = writer.get("/api/v1/datasets/coins").json()
    names = ("id", "format", "storage_path", "num_images", "num_annotations", "classes", "source_type", "metadata")
    row = rows(plane)["coins"]._mapping
    assert {name: row[name] for name in names} == {name: shown[name] for name in names}
    (folder / "train/labels/train-0000.txt").write_text("0 .5 .5 .1 .1\n")
    imported(writer, folder)
    assert rows(plane)["coins"].version == 2
    assert writer.delete("/api/v1/datasets/coins/versions/2").status_code == 200
    assert writer.delete("/api/v1/datasets/coins").status_code == 200
    assert rows(plane) == {}


def test_the_table_learns_of_what_was_imported_and_deleted_without_this_server(
    writer: TestClient, plane: FakePlane, folder: Path, store: LocalStore, settings: Settings
) -> None:
    imported(writer, folder)
    registry = DatasetRegistry(store, settings)
    registry.import_dataset(folder, name="others")
    registry.delete("coins")
    parts = writer.app.state.parts  # type: ignore[attr-defined]
    parts.datasets._sweep()
    assert set(rows(plane)) == {"others"}


def test_an_import_is_one_also_while_the_control_plane_is_away(
    writer: TestClient, plane: FakePlane, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(found: Any) -> None:
        raise ControlPlaneAwayError("The control plane does not answer.", "")

    monkeypatch.setattr(plane, "index_datasets", away)
    assert imported(writer, folder)["state"] == "done"
