"""Datasets over HTTP: uploads that go on, imports that say how far they are, and nothing of the server's own."""

from __future__ import annotations

import hashlib
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
from sqlalchemy import select

from eagleray.contract.errors import ConfigError
from eagleray.control.database.tables import DatasetRow
from eagleray.control.errors import ControlPlaneAwayError
from eagleray.registry import DatasetRegistry, Progress
from eagleray.settings import Settings
from eagleray.storage.local import LocalStore
from eagleray.testing.data import write_detection_dataset
from eagleray_serve import background, dataset_tasks, dataset_work
from eagleray_serve.archive import zip_of

from .conftest import connect
from .fake import FakePlane

PART = 1000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_detection_dataset(tmp_path / "coins")


def packed(folder: Path) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(folder.rglob("*.*")):
            archive.writestr(zipfile.ZipInfo(path.relative_to(folder).as_posix()), path.read_bytes())
    return file.getvalue()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def send(client: TestClient, upload_id: str, data: bytes, start: int) -> dict[str, Any]:
    part = data[start : start + PART]
    headers = {"X-Part-Sha256": sha256(part), "Content-Type": "application/octet-stream"}
    answer = client.put(f"/api/v1/uploads/{upload_id}/parts/{start}", content=part, headers=headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def uploaded(client: TestClient, data: bytes) -> str:
    body = {"size_bytes": len(data), "sha256": sha256(data), "filename": "coins.zip"}
    upload_id = str(client.post("/api/v1/uploads", json=body).json()["id"])
    for start in range(0, len(data), PART):
        send(client, upload_id, data, start)
    return upload_id


def ended(client: TestClient, answer: Any) -> dict[str, Any]:
    """The import once it has ended."""
    assert answer.status_code == 202, answer.text
    for _ in range(300):
        found: dict[str, Any] = client.get(answer.headers["location"]).json()
        if found["state"] not in ("waiting", "running"):
            return found
        time.sleep(0.05)
    raise AssertionError(found)


def imported(client: TestClient, folder: Path, **wanted: Any) -> dict[str, Any]:
    upload_id = uploaded(client, packed(folder))
    return ended(client, client.post("/api/v1/datasets", json={"upload_id": upload_id, "name": "coins", **wanted}))


def test_an_upload_that_was_broken_off_goes_on_at_another_replica_and_is_imported(
    build: Callable[..., FastAPI], keys: dict[str, str], folder: Path
) -> None:
    data = packed(folder)
    body = {"size_bytes": len(data), "sha256": sha256(data), "filename": "coins.zip"}
    with connect(build(), keys["writer"]) as first:
        upload_id = first.post("/api/v1/uploads", json=body).json()["id"]
        send(first, upload_id, data, 0)
    with connect(build(), keys["writer"]) as second:
        received = second.get(f"/api/v1/uploads/{upload_id}").json()["received"]
        assert received == [[0, PART]]
        for start in range(PART, len(data), PART):
            send(second, upload_id, data, start)
        done = ended(second, second.post("/api/v1/datasets", json={"upload_id": upload_id, "name": "coins"}))
        assert (done["state"], done["version"], done["created"]) == ("done", 1, True)
        shown = second.get("/api/v1/datasets/coins").json()
        assert (shown["num_images"], shown["source_type"], shown["created_by"]) == (8, "upload", "key:3")
        assert second.get(f"/api/v1/uploads/{upload_id}").status_code == 404


def test_a_damaged_part_is_refused(writer: TestClient) -> None:
    upload = writer.post("/api/v1/uploads", json={"size_bytes": 5, "sha256": "0" * 64}).json()
    answer = writer.put(
        f"/api/v1/uploads/{upload['id']}/parts/0", content=b"hello", headers={"X-Part-Sha256": "1" * 64}
    )
    assert (answer.status_code, answer.json()["code"]) == (409, "upload")


def test_a_part_may_be_larger_than_other_bodies_but_not_by_much(writer: TestClient) -> None:
    large = bytes(3 << 20)
    upload = writer.post("/api/v1/uploads", json={"size_bytes": 1 << 30, "sha256": "0" * 64}).json()
    path = f"/api/v1/uploads/{upload['id']}/parts/0"
    assert writer.put(path, content=large, headers={"X-Part-Sha256": sha256(large)}).status_code == 200
    too_large = bytes((8 << 20) + 1)
    assert writer.put(path, content=too_large, headers={"X-Part-Sha256": sha256(too_large)}).status_code == 413
    assert writer.post("/api/v1/uploads", content=large).status_code == 413


def test_versions_are_listed_compared_fetched_and_deleted(writer: TestClient, folder: Path) -> None:
    imported(writer, folder)
    (folder / "train/labels/train-0000.txt").write_text("0 .5 .5 .1 .1\n")
    assert imported(writer, folder, note="second")["version"] == 2
    assert imported(writer, folder)["created"] is False
    versions = writer.get("/api/v1/datasets/coins/versions").json()["items"]
    assert [(version["number"], version["note"]) for version in versions] == [(2, "second"), (1, "")]
    compared = writer.get("/api/v1/datasets/coins/compare", params={"a": 1}).json()
    assert compared["changed"] == ["train/labels/train-0000.txt"]
    page = writer.get("/api/v1/datasets/coins/versions/2/files", params={"limit": 10}).json()
    rest = writer.get("/api/v1/datasets/coins/versions/2/files", params={"limit": 10, "after": page["next"]}).json()
    assert (len(page["items"]), len(rest["items"]), rest["next"]) == (10, 7, None)
    archive = writer.get("/api/v1/datasets/coins/versions/2/archive")
    with zipfile.ZipFile(io.BytesIO(archive.content)) as opened:
        assert opened.testzip() is None
        assert {name: opened.read(name) for name in opened.namelist()} == {
            path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")
        }
    assert writer.delete("/api/v1/datasets/coins/versions/1").json() == {"deleted": "coins@1"}
    assert writer.delete("/api/v1/datasets/coins").json() == {"deleted": "coins"}
    assert writer.get("/api/v1/datasets").json()["items"] == []


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


def test_faults_are_told_and_may_be_mended(writer: TestClient, folder: Path) -> None:
    with (folder / "train/labels/train-0000.txt").open("a") as file:
        file.write("0 5 5 1 1\n")
    failed = imported(writer, folder)
    assert (failed["state"], failed["error"]["code"]) == ("failed", "dataset")
    assert "train-0000.txt" in failed["error"]["message"]
    mended = imported(writer, folder, mend=True)
    assert (mended["state"], len(mended["mended"])) == ("done", 1)


@pytest.mark.parametrize(
    "source",
    [
        "/etc",
        "coins",
        "file:///etc/passwd",
        "https://169.254.169.254/latest",
        "https://[::1]/x.zip",
        "https://0x7f000001/x.zip",
        "http://example.org/x.zip",
        "gopher://127.0.0.1/x",
        "s3://other-bucket/data",
    ],
)
def test_a_server_imports_from_no_place_of_its_own(source: str, writer: TestClient) -> None:
    done = ended(writer, writer.post("/api/v1/datasets", json={"source": source, "name": "stolen"}))
    assert done["state"] == "failed"
    assert done["error"]["code"] in ("config", "dataset")
    assert writer.get("/api/v1/datasets").json()["items"] == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"source": "https://example.org/x.zip", "upload_id": "a" * 32, "name": "x"},
        {"upload_id": "a" * 32},
        {"upload_id": "../x", "name": "x"},
        {"source": "https://example.org/x.zip", "name": "../x"},
        {"source": "https://example.org/x.zip", "validation": 2},
        {"source": "https://example.org/x.zip", "colour": "red"},
    ],
)
def test_a_wish_that_makes_no_sense_is_refused_at_once(body: dict[str, Any], writer: TestClient) -> None:
    assert writer.post("/api/v1/datasets", json=body).status_code == 422


@pytest.mark.parametrize("name", ["..", "%2e%2e", "..%2fx", "a%00b", "x" * 300, "c%D0%BEins"])
def test_a_name_never_leads_out_of_the_store(name: str, writer: TestClient) -> None:
    assert writer.get(f"/api/v1/datasets/{name}").status_code in (404, 422)
    assert writer.delete(f"/api/v1/datasets/{name}").status_code in (404, 405, 422)


def test_the_same_key_makes_one_import(writer: TestClient, folder: Path) -> None:
    upload_id = uploaded(writer, packed(folder))
    body = {"upload_id": upload_id, "name": "coins"}
    headers = {"Idempotency-Key": "once"}
    answers = [writer.post("/api/v1/datasets", json=body, headers=headers) for _ in range(3)]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert ended(writer, answers[0])["state"] == "done"
    other = writer.post("/api/v1/datasets", json={**body, "note": "other"}, headers=headers)
    assert other.status_code in (404, 409)


def test_a_key_of_a_project_deletes_only_its_own(
    app: FastAPI, keys: dict[str, str], writer: TestClient, folder: Path
) -> None:
    imported(writer, folder)
    with connect(app, keys["stranger"]) as stranger:
        assert stranger.delete("/api/v1/datasets/coins").status_code == 403
        assert stranger.get("/api/v1/datasets/coins").status_code == 200
    with connect(app, keys["admin"]) as admin:
        assert admin.delete("/api/v1/datasets/coins").status_code == 200


@pytest.fixture
def namesake(app: FastAPI, plane: FakePlane) -> Iterator[TestClient]:
    """Another key with the name of the writer's."""
    with connect(app, plane.key("anna", ["read", "write"], ["mine"])) as client:
        yield client


def test_a_namesake_owns_nothing_of_another_keys(writer: TestClient, namesake: TestClient, folder: Path) -> None:
    imported(writer, folder)
    assert namesake.delete("/api/v1/datasets/coins").status_code == 403
    assert namesake.delete("/api/v1/datasets/coins/versions/1").status_code == 403
    (folder / "train/labels/train-0000.txt").write_text("0 .5 .5 .1 .1\n")
    assert imported(namesake, folder)["error"]["code"] == "forbidden", "a version of another's dataset"


def test_datasets_are_everybodys_to_read_and_say_nothing_of_other_keys(
    writer: TestClient, namesake: TestClient, admin: TestClient, folder: Path
) -> None:
    imported(writer, folder)
    for path in ("/coins", "/coins/versions/1"):
        seen = [client.get(f"/api/v1/datasets{path}").json()["created_by"] for client in (writer, admin, namesake)]
        assert seen == ["key:3", "key:3", ""], path
    for path in ("", "/coins/versions"):
        assert [each["created_by"] for each in namesake.get(f"/api/v1/datasets{path}").json()["items"]] == [""], path


def test_imports_of_namesakes_are_apart(writer: TestClient, namesake: TestClient) -> None:
    body, headers = {"source": "https://[::1]/x.zip", "name": "coins"}, {"Idempotency-Key": "once"}
    first = writer.post("/api/v1/datasets", json=body, headers=headers)
    second = namesake.post("/api/v1/datasets", json={**body, "note": "other"}, headers=headers)
    assert (first.status_code, second.status_code) == (202, 202)
    assert namesake.get(first.headers["location"]).status_code == 404
    assert writer.get(first.headers["location"]).status_code == 200


def test_a_users_keys_own_the_same(admin: TestClient, app: FastAPI, plane: FakePlane, folder: Path) -> None:
    user = admin.post("/api/v1/users", json={"name": "anna", "projects": ["orchard"]}).json()["id"]
    old, new = (plane.key(name, ["read", "write"], user_id=user) for name in ("old", "new"))
    with connect(app, old) as client:
        imported(client, folder)
    with connect(app, new) as client:
        assert client.get("/api/v1/datasets/coins").json()["created_by"] == f"user:{user}"
        assert client.delete("/api/v1/datasets/coins").status_code == 200


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


def test_a_version_that_cannot_be_deleted_is_refused_in_the_registrys_words(writer: TestClient, folder: Path) -> None:
    imported(writer, folder)
    only = writer.delete("/api/v1/datasets/coins/versions/1")
    assert (only.status_code, only.json()["message"]) == (422, "coins@1 is the only version.")
    assert writer.delete("/api/v1/datasets/coins/versions/1").status_code == 422, "and so when asked again"
    assert writer.delete("/api/v1/datasets/coins/versions/7").status_code == 404


def test_a_dataset_cannot_have_the_name_of_a_route(writer: TestClient, folder: Path) -> None:
    body = {"upload_id": uploaded(writer, packed(folder)), "name": "imports"}
    refused = writer.post("/api/v1/datasets", json=body)
    assert refused.status_code == 422
    assert "cannot be called 'imports'" in refused.json()["message"]


def test_a_plan_takes_a_dataset_by_name(
    writer: TestClient, settings: Settings, store: LocalStore, tmp_path: Path
) -> None:
    from eagleray.testing.data import write_classification_dataset

    folder = write_classification_dataset(tmp_path / "shapes")
    version = DatasetRegistry(store, settings).import_dataset(folder).version
    spec = {"framework": "echo", "model_name": "echo-linear", "dataset_path": "shapes", "project_id": "orchard"}
    plan = writer.post("/api/v1/training/jobs:plan", json=spec).json()
    assert plan["dataset"]["digest"] == version.digest
    assert plan["spec"]["dataset_path"] == f"{version.dataset_id}@1"
