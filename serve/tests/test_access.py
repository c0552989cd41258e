"""Who may do what: every route with no key, a bad one, a revoked one, and one of another project."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from starlette.routing import WebSocketRoute
from starlette.testclient import WebSocketDenialResponse

from .conftest import SPEC, connect
from .fake import FakePlane

OPEN_ROUTES = {"/health"}
NEEDS_ADMIN = ("/api/v1/projects", "/api/v1/users", "/api/v1/keys")
VALUES = {
    "job_id": "1",
    "name": "echo",
    "task": "image-classification",
    "framework": "echo",
    "model_name": "echo-linear",
    "attempt": "1",
    "epoch": "1",
    "user_id": "1",
    "key_id": "1",
    "dataset": "coins",
    "number": "1",
    "import_id": "a" * 32,
    "upload_id": "a" * 32,
    "task_id": "a" * 32,
    "start": "0",
}
ADDRESS_OF_NAME = {"checkpoints": "best.pt", "projects": "orchard"}


def routes(app: FastAPI) -> Iterator[tuple[str, str]]:
    """`(method, path)` of every HTTP route, with values in its path."""
    for route in every(app.routes):
        if isinstance(route, APIRoute):
            path = route.path.replace(":path", "")
            for kind, name in ADDRESS_OF_NAME.items():
                if kind in path:
                    path = path.replace("{name}", name)
            for method in route.methods or ():
                yield method, path.format(**VALUES)


def every(found: Sequence[object]) -> Iterator[object]:
    for route in found:
        inner = getattr(route, "routes", None) or getattr(getattr(route, "original_router", None), "routes", None)
        if inner:
            yield from every(inner)
        else:
            yield route


def test_the_matrix_reaches_every_address_of_the_document(app: FastAPI) -> None:
    documented = {(method.upper(), path) for path, each in app.openapi()["paths"].items() for method in each}
    assert len(documented) == len(list(routes(app))) > 40


@pytest.mark.parametrize("key", [None, "nonsense", "", "x" * 5000, "revoked", "expired"])
def test_without_a_good_key_every_route_says_401(app: FastAPI, keys: dict[str, str], key: str | None) -> None:
    with connect(app) as client:
        for method, path in routes(app):
            if path in OPEN_ROUTES:
                continue
            headers = {} if key is None else {"X-API-Key": keys.get(key, key)}
            answer = client.request(method, path, json=SPEC, headers=headers)
            assert answer.status_code in (401, 422), (method, path, answer.status_code)
            assert answer.headers["content-type"] == "application/problem+json"
            if answer.status_code == 401:
                assert answer.headers["www-authenticate"] == "Bearer"
                assert answer.json()["code"] == "unauthenticated"


def test_without_a_key_and_without_a_body_every_route_says_401(app: FastAPI) -> None:
    with connect(app) as client:
        for method, path in routes(app):
            if path not in OPEN_ROUTES:
                assert client.request(method, path).status_code == 401, (method, path)


@pytest.fixture
def filled(plane: FakePlane, writer: TestClient) -> None:
    assert writer.post("/api/v1/training/jobs", json=SPEC).status_code == 201
    plane.fill(1)


def test_another_projects_job_does_not_exist(app: FastAPI, keys: dict[str, str], filled: None) -> None:
    with connect(app, keys["stranger"]) as client:
        seen = 0
        for method, path in routes(app):
            if "/jobs/1" in path or "/status/1" in path:
                body = {"priority": 1} if method == "PATCH" else None
                answer = client.request(method, path, json=body)
                absent = client.request(method, path.replace("/1", "/99999", 1), json=body)
                assert answer.status_code == absent.status_code == 404, (method, path, answer.text)
                assert answer.json()["message"].replace("1", "99999") == absent.json()["message"]
                seen += 1
        assert seen > 15
        assert client.get("/api/v1/training/jobs").json()["items"] == []
        assert client.get("/api/v1/events").json()["items"] == []
        assert [each["name"] for each in client.get("/api/v1/projects").json()["items"]] == ["mine"]
        answer = client.post("/api/v1/training/jobs", json=SPEC)
        assert (answer.status_code, "orchard" in answer.json()["hint"]) == (404, False)


def test_a_reader_may_only_read(app: FastAPI, keys: dict[str, str], filled: None) -> None:
    with connect(app, keys["reader"]) as client:
        for method, path in routes(app):
            if method != "GET":
                body = {"priority": 1} if method == "PATCH" and "jobs" in path else None
                answer = client.request(method, path, json=body)
                assert answer.status_code == 403, (method, path, answer.text)
                assert answer.json()["code"] == "forbidden"


def test_a_writer_is_no_admin(app: FastAPI, keys: dict[str, str]) -> None:
    with connect(app, keys["writer"]) as client:
        for method, path in routes(app):
            if path.startswith(NEEDS_ADMIN) and (method, path) != ("GET", "/api/v1/projects"):
                assert client.request(method, path).status_code == 403, (method, path)
        assert client.get("/metrics").status_code == 403


def test_a_socket_needs_a_key_and_shows_no_other_project(app: FastAPI, keys: dict[str, str], filled: None) -> None:
    sockets = [route.path for route in every(app.routes) if isinstance(route, WebSocketRoute)]
    assert len(sockets) == 2
    for key, status in ((None, 401), ("revoked", 401), ("stranger", 404)):
        with connect(app, keys.get(key or "")) as client:
            for path in sockets:
                if key == "stranger" and "job_id" not in path:
                    continue
                with (
                    pytest.raises(WebSocketDenialResponse) as denied,
                    client.websocket_connect(f"ws://localhost{path.format(job_id=1)}"),
                ):
                    pass
                assert denied.value.status_code == status


def test_a_revoked_key_is_refused_at_once(app: FastAPI, admin: TestClient, plane: FakePlane) -> None:
    made = admin.post("/api/v1/keys", json={"name": "short", "scopes": ["read"]}).json()
    with connect(app, made["key"]) as client:
        assert client.get("/api/v1/whoami").json()["name"] == "short"
        assert admin.delete(f"/api/v1/keys/{made['id']}").status_code == 200
        assert client.get("/api/v1/whoami").status_code == 401


def test_secrets_are_shown_once(admin: TestClient) -> None:
    made = admin.post("/api/v1/keys", json={"name": "short", "scopes": ["read"]}).json()
    assert made["key"] not in admin.get("/api/v1/keys").text


def test_wrong_keys_are_soon_refused_unseen(build: Callable[..., FastAPI], keys: dict[str, str]) -> None:
    with connect(build(failed_logins_per_minute=5)) as client:
        codes = [client.get("/api/v1/whoami", headers={"X-API-Key": f"guess-{n}"}).status_code for n in range(8)]
        assert codes == [401] * 5 + [429] * 3
        answer = client.get("/api/v1/whoami", headers={"X-API-Key": "guess"})
        assert int(answer.headers["retry-after"]) >= 1


def test_wrong_keys_do_not_shut_out_a_good_one_behind_the_same_address(
    build: Callable[..., FastAPI], keys: dict[str, str]
) -> None:
    with connect(build(failed_logins_per_minute=2, key_cache_s=0)) as client:
        codes = [client.get("/api/v1/whoami", headers={"X-API-Key": "wrong"}).status_code for _ in range(4)]
        assert codes == [401, 401, 429, 429]
        assert client.get("/api/v1/whoami", headers={"X-API-Key": keys["reader"]}).status_code == 200


def test_one_key_is_limited_and_another_is_not(build: Callable[..., FastAPI], keys: dict[str, str]) -> None:
    app = build(key_rate_per_s=5)
    with connect(app, keys["writer"]) as client:
        codes = [client.get("/api/v1/whoami").status_code for _ in range(20)]
    assert codes[:5] == [200] * 5
    assert 429 in codes
    with connect(app, keys["reader"]) as client:
        assert client.get("/api/v1/whoami").status_code == 200


def test_one_address_is_limited(build: Callable[..., FastAPI]) -> None:
    with connect(build(address_rate_per_s=5)) as client:
        answers = [client.get("/health") for _ in range(20)]
    assert answers[-1].status_code == 429
    assert answers[-1].json()["code"] == "too-many-requests"
