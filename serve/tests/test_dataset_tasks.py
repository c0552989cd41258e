"""Work on datasets in the background: reports, previews, copies and deletions, at one replica or another."""

from __future__ import annotations

import io
import json
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from eagleray.contract.errors import ConfigError
from eagleray.registry import DatasetRegistry, Progress
from eagleray.settings import Settings
from eagleray.storage.local import LocalStore
from eagleray_serve import background, dataset_tasks, dataset_work
from eagleray_serve.archive import zip_of

from .conftest import connect
from .datasets_over_http import ended, imported, packed, uploaded


def made(client: TestClient, what: str, body: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """The task once it has ended, and its result."""
    task = ended(client, client.post(f"/api/v1/datasets/coins/versions/1/{what}", json=body))
    return task, client.get(task["links"]["result"]).content if "result" in task["links"] else b""


def test_a_version_is_validated_shown_and_converted_in_the_background(writer: TestClient, folder: Path) -> None:
    imported(writer, folder)
    report = json.loads(made(writer, "validation", {"pictures": True})[1])
    assert (report["path"], report["errors"]) == ("coins@1", 0)
    assert made(writer, "preview", {"images": 2})[1].startswith(b"\x89PNG")
    task, archive = made(writer, "conversion", {"format": "coco", "rename_classes": {"a": "penny"}})
    assert (task["state"], task["lost"]) == ("done", [])
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert any(b"penny" in opened.read(name) for name in opened.namelist() if name.endswith(".json"))
    assert made(writer, "conversion", {"format": "coco", "keep_classes": ["none"]})[0]["state"] == "failed"


def test_the_same_wish_is_done_once(
    writer: TestClient, folder: Path, monkeypatch: pytest.MonkeyPatch, store: LocalStore
) -> None:
    imported(writer, folder)
    first, report = made(writer, "validation", {})
    with monkeypatch.context() as patch:
        patch.setattr(dataset_tasks, "validate", None)
        assert made(writer, "validation", {}) == (first, report)
    store.delete(f"dataset_results/{first['id']}")
    assert made(writer, "validation", {})[1] == report


def test_a_stored_version_is_mended_into_the_next_one(
    writer: TestClient, app: FastAPI, keys: dict[str, str], folder: Path
) -> None:
    label = folder / "train/labels/train-0000.txt"
    label.write_text(label.read_text().splitlines()[0] + "\n" + label.read_text().splitlines()[0] + "\n")
    imported(writer, folder)
    path = "/api/v1/datasets/coins/versions/1/mend"
    with connect(app, keys["stranger"]) as stranger:
        assert stranger.post(path, json={}).status_code == 403
    done = ended(writer, writer.post(path, json={"note": "twins gone"}))
    assert (done["state"], done["version"], len(done["mended"])) == ("done", 2, 1)
    assert writer.get("/api/v1/datasets/coins/versions/2").json()["note"] == "twins gone"


def test_an_import_that_waits_for_a_thread_is_not_lost_and_is_not_run_twice(
    writer: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, ran = threading.Event(), []

    def wait(self: Any, view: Any, *rest: Any) -> Any:
        ran.append(view.name)
        gate.wait(20)
        raise ConfigError("over")

    def begin(number: int) -> Any:
        body = {"source": "https://example.org/x.zip", "name": f"coins-{number}"}
        return writer.post("/api/v1/datasets", json=body, headers={"Idempotency-Key": f"key-{number}"})

    monkeypatch.setattr(dataset_work.DatasetWork, "_import", wait)
    begun = [begin(number) for number in range(3)]
    monkeypatch.setattr(background, "SILENCE", timedelta(0))
    assert writer.get(begun[2].headers["location"]).json()["state"] == "waiting"
    assert begin(2).json()["state"] == "waiting"
    gate.set()
    assert [ended(writer, answer)["state"] for answer in begun] == ["failed"] * 3
    assert sorted(ran) == ["coins-0", "coins-1", "coins-2"]


def test_work_that_waits_says_to_other_replicas_that_it_lives(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "SILENCE", timedelta(seconds=0.4))
    gate = threading.Event()
    here, elsewhere = (background.Background(store, "work", threads=1) for _ in range(2))
    now = datetime.now(UTC)
    views = [background.WorkView(id=name, created_by="", created_at=now, updated_at=now) for name in ("a", "b")]

    def wait(view: background.WorkView, progress: Progress) -> None:
        gate.wait(20)

    for view in views:
        here.begin(view, wait)
    time.sleep(1.0)
    seen = [elsewhere.show(view.id, background.WorkView) for view in views]
    gate.set()
    assert [view.state for view in seen if view] == ["running", "waiting"]


def test_an_archive_holds_no_whole_file_in_memory(store: LocalStore, settings: Settings, folder: Path) -> None:
    (folder / "notes.md").write_bytes(b"x" * (5 << 20))
    registry = DatasetRegistry(store, settings)
    registry.import_folder(folder, name="coins")
    _, chunks = zip_of(registry, "coins", settings.imports)
    pieces = list(chunks)
    assert max(map(len, pieces)) < 2 << 20
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as opened:
        assert opened.testzip() is None
        assert len(opened.read("notes.md")) == 5 << 20


def test_an_archive_goes_on_when_a_new_version_moves_its_files(
    store: LocalStore, settings: Settings, folder: Path
) -> None:
    registry = DatasetRegistry(store, settings)
    registry.import_folder(folder, name="coins")
    old = (folder / "train/labels/train-0003.txt").read_bytes()
    _, chunks = zip_of(registry, "coins@1", settings.imports)
    first = next(chunks)
    (folder / "train/labels/train-0003.txt").write_text("0 .5 .5 .1 .1\n")
    registry.import_folder(folder, name="coins")
    with zipfile.ZipFile(io.BytesIO(first + b"".join(chunks))) as opened:
        assert opened.read("train/labels/train-0003.txt") == old


def test_an_import_whose_replica_died_is_lost_and_may_be_begun_again(
    build: Callable[..., FastAPI],
    keys: dict[str, str],
    folder: Path,
    store: LocalStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    headers = {"Idempotency-Key": "again"}
    with connect(build(), keys["writer"]) as dying, monkeypatch.context() as patch:
        patch.setattr(background.Background, "_run", lambda *args: None)
        body = {"upload_id": uploaded(dying, packed(folder)), "name": "coins"}
        begun = dying.post("/api/v1/datasets", json=body, headers=headers)
    key = f"dataset_imports/{begun.json()['id']}.json"
    state = json.loads(store.get_bytes(key))
    store.put_bytes(key, json.dumps({**state, "updated_at": "2020-01-01T00:00:00Z"}).encode())
    with connect(build(), keys["writer"]) as other:
        assert other.get(begun.headers["location"]).json()["state"] == "lost"
        again = other.post("/api/v1/datasets", json=body, headers=headers)
        assert again.json()["id"] == begun.json()["id"]
        assert ended(other, again)["state"] == "done"


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Deletions take until it is set."""
    gate, delete = threading.Event(), DatasetRegistry.delete

    def wait(*arguments: Any, **options: Any) -> None:
        assert gate.wait(20)
        delete(*arguments, **options)

    monkeypatch.setattr(DatasetRegistry, "delete", wait)
    monkeypatch.setattr(dataset_tasks, "PATIENCE_S", 0.05)
    yield gate
    gate.set()


def test_a_deletion_that_takes_long_goes_on_in_the_background(
    writer: TestClient, folder: Path, slowly: threading.Event
) -> None:
    imported(writer, folder)
    begun = writer.delete("/api/v1/datasets/coins")
    assert (begun.status_code, begun.json()["kind"], begun.json()["version"]) == (202, "deletion", None)
    again = writer.delete("/api/v1/datasets/coins")
    assert again.json()["id"] == begun.json()["id"], "asked twice, deleted once"
    slowly.set()
    done = ended(writer, begun)
    assert (done["state"], list(done["links"])) == ("done", ["self"])
    assert writer.get("/api/v1/datasets/coins").status_code == 404
    assert writer.delete("/api/v1/datasets/coins").status_code == 404
