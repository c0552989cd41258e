"""What the outermost layer refuses, adds and hides."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from eagleray.control.errors import ControlPlaneAwayError

from .conftest import SPEC, connect
from .fake import FakePlane

JOBS = "/api/v1/training/jobs"


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::2]"])
def test_another_host_name_is_refused(admin: TestClient, host: str) -> None:
    answer = admin.get(JOBS, headers={"Host": host})
    assert (answer.status_code, answer.json()["code"]) == (400, "unknown-host")


def test_allowed_hosts_can_be_named(build: Callable[..., FastAPI]) -> None:
    with connect(build(allowed_hosts=("*.example.org",))) as client:
        assert client.get("/health", headers={"Host": "train.example.org:8000"}).status_code == 200
        assert client.get("/health", headers={"Host": "example.org.evil"}).status_code == 400


def test_browsers_of_other_origins_are_told_nothing(admin: TestClient) -> None:
    answer = admin.get(JOBS, headers={"Origin": "https://evil.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    preflight = admin.options(
        JOBS, headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "DELETE"}
    )
    assert preflight.status_code == 405
    assert not [name for name in preflight.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/health", JOBS, "/nothing", "/api/v1/keys"])
def test_every_answer_has_safe_headers_and_an_id(admin: TestClient, path: str) -> None:
    headers = admin.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store"
    assert len(headers["x-request-id"]) == 16


def test_a_clients_request_id_is_kept_unless_it_could_forge_a_log(admin: TestClient) -> None:
    assert admin.get("/health", headers={"X-Request-ID": "trace-0001"}).headers["x-request-id"] == "trace-0001"
    assert admin.get("/health", headers={"X-Request-ID": "a b%0A"}).headers["x-request-id"] != "a b%0A"


@pytest.mark.parametrize(("path", "status"), [("/nothing", 404), ("/api/v1/training/jobs/x", 422), ("/health/", 404)])
def test_errors_have_one_shape(admin: TestClient, path: str, status: int) -> None:
    answer = admin.get(path)
    assert answer.status_code == status
    body = answer.json()
    assert set(body) == {"type", "title", "status", "code", "message", "hint", "request_id", "errors"}
    assert body["request_id"] == answer.headers["x-request-id"]


def test_what_breaks_inside_stays_inside(admin: TestClient, plane: FakePlane, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret: ~/.eagleray/admin.key")

    monkeypatch.setattr(plane, "create_job", broken)
    answer = admin.post(JOBS, json=SPEC)
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text


def test_a_control_plane_that_is_away_is_503_and_reading_goes_on(
    admin: TestClient, plane: FakePlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise ControlPlaneAwayError("The control plane does not answer.")

    monkeypatch.setattr(plane, "create_job", away)
    monkeypatch.setattr(plane, "health", away)
    answer = admin.post(JOBS, json=SPEC)
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (
        503,
        "control-plane-away",
        "5",
    )
    assert admin.get(JOBS).status_code == 200
    ready = admin.get("/api/v1/health")
    assert (ready.status_code, ready.json()["parts"]["control"]["ok"], ready.json()["parts"]["database"]["ok"]) == (
        503,
        False,
        True,
    )


def test_a_body_has_a_limit_whether_announced_or_not(admin: TestClient, build: Callable[..., FastAPI]) -> None:
    answer = admin.post(JOBS, content=b" " * (2 << 20))
    assert (answer.status_code, answer.json()["code"]) == (413, "body")
    answer = admin.post(JOBS, content=(b" " * 100_000 for _ in range(20)))
    assert answer.status_code == 413


def test_encoded_bodies_are_not_unpacked(admin: TestClient) -> None:
    assert admin.post(JOBS, content=b"x", headers={"Content-Encoding": "gzip"}).status_code == 415


def test_deep_nesting_is_refused(admin: TestClient) -> None:
    answer = admin.post(JOBS, content=b'{"advanced_config":' + b"[" * 50_000 + b"]" * 50_000 + b"}")
    assert answer.status_code == 422
    answer = admin.post(JOBS, content=b'{"advanced_config":' + b'{"a":' * 50 + b"1" + b"}" * 50 + b"}")
    assert answer.status_code == 422


def test_an_answer_has_a_time_limit(build: Callable[..., FastAPI], plane: FakePlane, keys: dict[str, str]) -> None:
    plane.create_job = lambda *_, **__: time.sleep(1)  # type: ignore[method-assign,assignment]
    with connect(build(request_timeout_s=0.2), keys["admin"]) as client:
        answer = client.post(JOBS, json=SPEC)
    assert (answer.status_code, answer.json()["code"]) == (504, "timeout")


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e",
        "/etc/passwd",
        "a%00b",
        "C:%5Cx",
        "x" * 300,
        "оrchard",
        "a%23b",
        "a%3Fb",
    ],
)
def test_odd_names_are_refused_or_unknown(admin: TestClient, name: str) -> None:
    for path in (
        f"/api/v1/projects/{name}",
        f"/api/v1/frameworks/{name}",
        f"/models/{name}",
        f"{JOBS}/1/checkpoints/{name}",
        f"{JOBS}/{name}",
    ):
        method = "DELETE" if "projects" in path else "GET"
        assert admin.request(method, path).status_code in (404, 405, 422), path


def test_markup_and_formulas_come_back_as_data(admin: TestClient) -> None:
    text = "<img src=x onerror=alert(1)>"
    made = admin.post(JOBS, json={**SPEC, "session_id": text, "created_by": "=cmd|' /C calc'!A0"})
    assert made.json()["session_id"] == text
    assert made.headers["content-type"] == "application/json"


def test_requests_are_counted_by_route_and_never_by_address(admin: TestClient) -> None:
    for number in range(1, 4):
        admin.get(f"{JOBS}/{number}")
    admin.get("/wp-login.php")
    text = admin.get("/metrics").text
    assert 'eagleray_http_requests_total{method="GET",route="/api/v1/training/jobs/{job_id}",status="404"} 3.0' in text
    assert "wp-login" not in text
    assert "eagleray_jobs_queued 0.0" in text
