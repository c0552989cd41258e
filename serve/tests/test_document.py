"""The OpenAPI document: examples everywhere, and no answer that it does not describe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import response_schema_conformance

from eagleray.control.commands import SYSTEM

from .conftest import SPEC
from .fake import FakePlane

METHODS = {"get", "post", "patch", "put", "delete"}


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if method in METHODS:
                yield f"{method.upper()} {path}", operation


def test_every_route_has_examples(app: FastAPI) -> None:
    for name, operation in operations(app.openapi()):
        success = next(found for code, found in operation["responses"].items() if code.startswith("2"))
        assert any("example" in content for content in success["content"].values()), name
        for content in operation.get("requestBody", {}).get("content", {}).values():
            assert "example" in content, f"{name}: the request has no example"


def test_examples_fit_their_schemas(app: FastAPI) -> None:
    document = app.openapi()
    checked = 0
    for name, operation in operations(document):
        for part in (*operation["responses"].values(), operation.get("requestBody", {})):
            for content in part.get("content", {}).values():
                if "schema" in content and "example" in content and content["schema"]:
                    schema = {**content["schema"], "components": document["components"]}
                    try:
                        jsonschema.validate(content["example"], schema)
                    except jsonschema.ValidationError as error:
                        pytest.fail(f"{name}: {error.message}")
                    checked += 1
    assert checked > 45


def test_every_route_says_what_its_errors_look_like(app: FastAPI) -> None:
    for name, operation in operations(app.openapi()):
        if name != "GET /health":
            assert "application/problem+json" in operation["responses"]["401"]["content"], name


def test_operation_ids_are_distinct(app: FastAPI) -> None:
    ids = [operation["operationId"] for _, operation in operations(app.openapi())]
    assert len(ids) == len(set(ids))


def test_the_document_is_served_to_those_with_a_key(admin: TestClient) -> None:
    assert admin.get("/api/v1/openapi.json").json()["info"]["title"] == "eagleray"


# Imports that an earlier request began pause by `random` in threads of the server, which hypothesis takes for draws.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
@pytest.mark.parametrize("examples", [2, pytest.param(25, marks=pytest.mark.slow)])
def test_no_request_that_the_document_allows_breaks_the_server(
    examples: int, build: Callable[..., FastAPI], keys: dict[str, str], plane: FakePlane
) -> None:
    app = build(allowed_hosts=("*",), stream_s=0.05)
    headers = {"Authorization": f"Bearer {keys['admin']}"}
    for number in range(3):
        plane.create_job(SYSTEM, {**SPEC, "project_id": None}, idempotency_key=str(number))
    plane.fill(1)
    schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", app, headers=headers)
    tried = 0
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        operation = result.ok()

        @given(case=operation.as_strategy())
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        def attempt(case: schemathesis.Case[Any]) -> None:
            response = case.call(headers=headers)
            case.validate_response(response, checks=[not_a_server_error, response_schema_conformance])

        tried += 1
        attempt()
    assert tried > 40
