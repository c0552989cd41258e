"""What a client of the prototype relies on: addresses, field names, values of `status`."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from eagleray.jobs.phases import Phase

from .conftest import SPEC, connect
from .fake import FakePlane

FIELDS = {
    "id",
    "session_id",
    "project_id",
    "created_by",
    "framework",
    "model_name",
    "task_type",
    "dataset_path",
    "dataset_format",
    "epochs",
    "batch_size",
    "learning_rate",
    "status",
    "output_dir",
    "error_message",
    "advanced_config",
}
STATUS = {
    Phase.CREATED: "pending",
    Phase.QUEUED: "pending",
    Phase.PREPARING: "pending",
    Phase.RUNNING: "running",
    Phase.STOPPING: "running",
    Phase.COMPLETED: "completed",
    Phase.FAILED: "failed",
    Phase.CANCELLED: "cancelled",
}


def test_health_needs_no_key_and_says_little(app: FastAPI) -> None:
    with connect(app) as client:
        answer = client.get("/health")
    assert answer.status_code == 200
    assert answer.json() == {"status": "healthy", "service": "eagleray", "version": "0.1.0"}


def test_training_start_and_status(writer: TestClient, plane: FakePlane) -> None:
    started = writer.post("/training/start", json={**SPEC, "task_type": "classification"})
    assert started.status_code == 200
    assert started.json() == {
        "job_id": 1,
        "status": "pending",
        "phase": "queued",
        "current_epoch": 0,
        "total_epochs": 3,
        "progress": 0.0,
        "metrics": {},
        "output_dir": "",
        "error_message": None,
    }
    assert writer.get("/training/status/1").json() == started.json()


@pytest.mark.parametrize("phase", list(Phase))
def test_status_has_the_prototypes_values(writer: TestClient, plane: FakePlane, phase: Phase) -> None:
    writer.post("/training/start", json=SPEC)
    plane.happen(1, "phase", phase=phase)
    answer = writer.get("/training/status/1").json()
    assert (answer["status"], answer["phase"]) == (STATUS[phase], phase)
    assert writer.get("/api/v1/training/jobs/1").json()["status"] == STATUS[phase]


def test_jobs_are_made_started_and_shown_with_its_fields(writer: TestClient) -> None:
    made = writer.post("/api/v1/training/jobs", json=SPEC)
    assert (made.status_code, made.json()["id"], made.json()["status"]) == (201, 1, "pending")
    assert writer.post("/api/v1/training/jobs/1/start").json()["phase"] == "queued"
    assert set(writer.get("/api/v1/training/jobs/1").json()) >= FIELDS


def test_models_and_frameworks(writer: TestClient) -> None:
    models = writer.get("/models/list").json()["models"]
    assert {"echo-linear", "yolo11n"} <= {model["name"] for model in models}
    one = writer.get("/models/yolo11n").json()
    assert (one["name"], one["framework"]) == ("yolo11n", "ultralytics")
    assert len(one["variants"]) > 1
    assert writer.get("/models/nothing").json()["code"] == "unknown-name"
    frameworks = writer.get("/api/v1/trainer/frameworks").json()["frameworks"]
    assert {"echo", "ultralytics"} <= {framework["name"] for framework in frameworks}
