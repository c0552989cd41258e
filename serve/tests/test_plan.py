"""What a job would be: said before it is made, and without making anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from eagleray.plugins.host import Catalogue, Quarantine
from eagleray.settings import Settings
from eagleray.storage.local import LocalStore
from eagleray.testing.data import write_classification_dataset
from eagleray_serve.app import make_app

from .conftest import OPEN, SPEC, connect
from .fake import FakePlane

PLAN = "/api/v1/training/jobs:plan"


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    return {**SPEC, "dataset_path": str(write_classification_dataset(tmp_path / "shapes"))}


def test_a_plan_says_that_the_job_would_wait_and_for_what(
    writer: TestClient, plane: FakePlane, spec: dict[str, Any]
) -> None:
    free = writer.post(PLAN, json=spec).json()
    assert (free["would_wait"], free["waiting"]) == (False, "")
    plane.waits_for = "500 workers with 8 GPUs are wanted, and the cluster has none"
    planned = writer.post(PLAN, json={**spec, "priority": 3}).json()
    assert (planned["would_wait"], planned["waiting"]) == (True, plane.waits_for)
    assert writer.get("/api/v1/training/jobs").json()["items"] == []


def test_another_projects_plan_does_not_exist(app: FastAPI, keys: dict[str, str], spec: dict[str, Any]) -> None:
    with connect(app, keys["stranger"]) as stranger:
        assert stranger.post(PLAN, json=spec).status_code == 404


@pytest.mark.parametrize("address", ["https://user:secret@example.org/coins.zip?key=secret", "s3://data/coins"])
def test_a_plan_imports_nothing(address: str, writer: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def imported(*_: Any, **__: Any) -> None:
        raise AssertionError("it was imported")

    monkeypatch.setattr("eagleray.registry.registry.DatasetRegistry.import_dataset", imported)
    answer = writer.post(PLAN, json={**SPEC, "dataset_path": address})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["dataset"]["note"].startswith("would be imported from ")
    assert "secret" not in str(found["dataset"])
    assert (found["framework"], found["task"], found["would_wait"]) == ("echo", "image-classification", False)


def test_a_plan_before_the_import_lacks_only_the_figures(writer: TestClient, spec: dict[str, Any]) -> None:
    whole = writer.post(PLAN, json=spec).json()
    before = writer.post(PLAN, json={**spec, "dataset_path": "s3://data/coins"}).json()
    assert before.keys() == whole.keys()
    assert {key for key, value in whole.items() if before[key] != value} == {"dataset", "spec"}
    assert before["spec"] == {**whole["spec"], "dataset_path": "s3://data/coins", "dataset_format": None}
    assert "is checked and counted then" in before["dataset"]["note"]


@pytest.fixture
def quarantined(
    plane: FakePlane, catalogue: Catalogue, store: LocalStore, settings: Settings, keys: dict[str, str]
) -> Callable[[], TestClient]:
    broken = Quarantine("broken", "eagleray-broken", "1.0", "it was written for contract 7.", "Upgrade it.")

    def client() -> TestClient:
        found = replace(catalogue, quarantined=(broken,))
        return connect(make_app(plane, plane.queries, found, store, settings, OPEN), keys["writer"])

    return client


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/frameworks/broken", 409),
        ("GET", "/api/v1/frameworks/broken/tasks/image-classification/schema", 409),
        ("GET", "/api/v1/models?framework=broken", 409),
        ("POST", "/api/v1/training/jobs", 422),
        ("POST", PLAN, 422),
    ],
)
def test_a_framework_in_quarantine_says_why_and_who_can_tell_more(
    method: str, path: str, status: int, quarantined: Callable[[], TestClient]
) -> None:
    with quarantined() as client:
        answer = client.request(method, path, json={**SPEC, "framework": "broken"} if method == "POST" else None)
    assert answer.status_code == status
    assert "it was written for contract 7." in answer.json()["message"]
    assert answer.json()["hint"] == "Upgrade it. On the server: eagleray plugins doctor"
