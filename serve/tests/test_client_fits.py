"""The Python client asks only for what the OpenAPI document offers."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from fastapi import FastAPI

from eagleray.client import Client
from eagleray.client.datasets import Datasets

SPEC = {"framework": "echo", "model_name": "echo-linear", "dataset_path": "/data"}
# How each method is called; one that is missing here fails the test.
CALLS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "create_job": ((SPEC,), {"start": True, "priority": 3}),
    "plan_job": ((SPEC,), {"priority": 3}),
    "jobs": (
        (),
        dict.fromkeys(("framework", "model_name", "task_type", "project_id", "created_by", "session_id"), "x"),
    ),
    "job": ((7,), {}),
    "start_job": ((7,), {}),
    "stop_job": ((7,), {}),
    "cancel_job": ((7,), {}),
    "resume_job": ((7,), {"epochs": 3}),
    "retry_job": ((7,), {}),
    "clone_job": ((7, {"epochs": 3}), {"start": True}),
    "delete_job": ((7,), {}),
    "set_priority": ((7, 3), {"version": 2}),
    "attempts": ((7,), {}),
    "metrics": ((7,), {"keys": ["loss"], "first_epoch": 1, "last_epoch": 2, "max_points": 10}),
    "logs": ((7,), {"attempt": 1, "rank": 0, "tail": 10, "after": "3"}),
    "checkpoints": ((7,), {}),
    "download": ((7, "best.pt", Path("INTO")), {}),
    "events": ((7,), {"after": 3}),
    "follow": ((7,), {"after": 3}),
    "frameworks": ((), {}),
    "catalogue": ((), {}),
    "framework": (("echo",), {}),
    "config_schema": (("echo", "image-classification"), {}),
    "models": ((), {"framework": "echo", "task": "x", "name": "y"}),
    "projects": ((), {}),
    "create_project": (("orchard",), {"quota_jobs": 1, "quota_gpus": 2.0}),
    "update_project": (("orchard",), {"quota_jobs": 1}),
    "delete_project": (("orchard",), {}),
    "users": ((), {}),
    "create_user": (("anna",), {"projects": ["orchard"]}),
    "delete_user": ((2,), {}),
    "keys": ((), {}),
    "create_key": (("anna",), {"projects": ["orchard"], "user_id": 2, "expires_at": "2027-01-31T00:00:00Z"}),
    "revoke_key": ((3,), {}),
    "health": ((), {}),
    "ready": ((), {}),
    "whoami": ((), {}),
    "wait_until_up": ((1.0,), {}),
}
CHANGES = {
    "task": "object-detection",
    "validation": 0.2,
    "keep_classes": ["a"],
    "rename_classes": {"a": "b"},
    "splits": {"val": "train"},
    "allow_loss": True,
}
DONE = {
    "state": "done",
    "dataset": "coins",
    "version": 1,
    "links": {"self": "/", "result": f"/api/v1/dataset-tasks/{'a' * 32}/result"},
}
DATASET_CALLS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "all": ((), {}),
    "show": (("coins",), {}),
    "versions": (("coins",), {}),
    "version": (("coins", 2), {}),
    "files": (("coins", 2), {}),
    "compare": (("coins", 1, 2), {}),
    "delete": (("coins", 1), {}),
    "upload": ((Path("archive.zip"),), {}),
    "import_dataset": (
        ({"source": "s3://b/p", "name": "coins", "format": "yolo", "mend": True, "note": "x", **CHANGES},),
        {},
    ),
    "mend": (("coins", 1), {"note": "x", "allow_loss": True}),
    "validate": (("coins", 1), {"task": "x", "pictures": True}),
    "preview": (("coins", 1), {"images": 3, "seed": 1}),
    "convert": (("coins", 1, "coco"), CHANGES),
    "wait": (
        (
            {
                "state": "running",
                "stage": "",
                "done": 0,
                "total": None,
                "links": {"self": f"/api/v1/datasets/imports/{'a' * 32}"},
            },
        ),
        {},
    ),
    "report": ((DONE,), {}),
    "result": ((DONE, Path("INTO")), {}),
    "archive": (("coins", 1, Path("INTO")), {}),
}


# What any call can live with.
ANSWER = {"items": [], "id": "a" * 32, "size_bytes": 7, "received": [], "state": "done"}


def methods_of(kind: type) -> list[str]:
    return sorted(name for name, member in vars(kind).items() if inspect.isfunction(member) and name[0] != "_")


@pytest.fixture(scope="module")
def seen() -> list[httpx.Request]:
    return []


@pytest.mark.parametrize(
    ("part", "method"),
    [("", name) for name in methods_of(Client) if name != "close"]
    + [("datasets", name) for name in methods_of(Datasets)],
)
def test_every_call_is_in_the_document(
    part: str, method: str, app: FastAPI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EAGLERAY_HOME", str(tmp_path))
    (tmp_path / "archive.zip").write_bytes(b"archive")
    document = app.openapi()
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(204) if "stream" in request.url.path else httpx.Response(200, json=ANSWER)

    arguments, keywords = DATASET_CALLS[method] if part else CALLS[method]
    client = Client("http://server", "key", transport=httpx.MockTransport(answer))
    result = getattr(client.datasets if part else client, method)(*arguments, **keywords)
    if inspect.isgenerator(result):
        list(result)
    assert asked
    for request in asked:
        check(document, request)


def check(document: dict[str, Any], request: httpx.Request) -> None:
    operation = operation_of(document, request)
    parameters = {(each["in"], each["name"].lower()) for each in operation.get("parameters", [])}
    for name in request.url.params:
        assert ("query", name) in parameters, f"{request.method} {request.url.path} has no query parameter '{name}'"
    for name in ("idempotency-key", "if-match", "last-event-id"):
        if name in request.headers:
            assert ("header", name) in parameters, f"{request.url.path}: no header {name}"
    if request.content and request.headers["Content-Type"] == "application/json":
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        jsonschema.validate(json.loads(request.content), {**schema, "components": document["components"]})


def operation_of(document: dict[str, Any], request: httpx.Request) -> dict[str, Any]:
    found = []
    for path, methods in document["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", path), request.url.path) and request.method.lower() in methods:
            found.append((path.count("{"), methods[request.method.lower()]))
    assert found, f"{request.method} {request.url.path} is not in the document"
    return dict(min(found, key=lambda each: each[0])[1])
