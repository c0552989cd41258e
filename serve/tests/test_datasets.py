"""Datasets over HTTP: uploads that go on, imports that say how far they are, and nothing of the server's own."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from eagleray.registry import DatasetRegistry
from eagleray.settings import Settings
from eagleray.storage.local import LocalStore

from .conftest import connect
from .datasets_over_http import PART, ended, imported, packed, send, sha256, uploaded
from .fake import FakePlane


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
