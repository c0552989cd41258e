"""The app over the real control plane, with a cluster that is only simulated."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient

from eagleray.cli.follow import follow
from eagleray.client import Client
from eagleray.control.commands import SYSTEM
from eagleray.control.database.opening import open_database, open_read_only
from eagleray.control.plane import ControlPlane
from eagleray.control.queries import Queries
from eagleray.control.settings import ControlSettings
from eagleray.control.specs import checking
from eagleray.plugins.host import Catalogue
from eagleray.settings import Settings
from eagleray.storage.local import LocalStore
from eagleray.testing.cluster import SimulatedExecutor
from eagleray_serve.app import make_app

from .conftest import OPEN, SPEC, connect

JOBS = "/api/v1/training/jobs"


@pytest.fixture
def plane(settings: Settings, store: LocalStore, catalogue: Catalogue) -> Iterator[ControlPlane]:
    engine = open_database(None, settings.home)
    found = ControlPlane(
        engine,
        SimulatedExecutor(),
        store,
        checking(lambda: catalogue),
        settings=ControlSettings(poll_s=0.0, grace_s=0.0, max_drivers=4),
    )
    found.start(owner_timeout_s=1, dispatch=False)
    yield found
    found.close()
    engine.dispose()


@pytest.fixture
def client(plane: ControlPlane, settings: Settings, store: LocalStore, catalogue: Catalogue) -> Iterator[TestClient]:
    queries = Queries(open_read_only(None, settings.home))
    key = plane.create_key(SYSTEM, name="root", scopes=["admin"], projects=None)["key"]
    with connect(make_app(plane, queries, catalogue, store, settings, OPEN), key) as found:
        found.post("/api/v1/projects", json={"name": "orchard", "quota_jobs": 4})
        yield found


def make(client: TestClient, **changes: Any) -> dict[str, Any]:
    answer = client.post(JOBS, json={**SPEC, **changes})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def run(plane: ControlPlane, job_id: int, *events: dict[str, Any]) -> None:
    """Admit the job and let its driver say `events`."""
    plane.dispatcher.tick()
    begun: list[dict[str, Any]] = [
        {"type": "attempt", "attempt": 1, "resumed_from_epoch": None},
        {"type": "phase", "phase": "running", "message": ""},
    ]
    plane.record(job_id, 1, [{"seq": number, **event} for number, event in enumerate([*begun, *events], 1)])


def test_a_job_goes_from_the_queue_to_its_end(client: TestClient, plane: ControlPlane) -> None:
    job = make(client)
    assert client.post(f"{JOBS}/{job['id']}/start").json()["queue_position"] == 1
    epochs = [
        {"type": "epoch", "epoch": n, "metrics": {"loss": 1 / n}, "best": {"epoch": n, "value": 0.5, "metric": "loss"}}
        for n in (1, 2, 3)
    ]
    lines = {"type": "log", "rank": 0, "lines": ["hello", "\x1b[31mred"]}
    run(plane, job["id"], *epochs, lines, {"type": "finished", "outcome": "completed", "failure": None})
    found = client.get(f"{JOBS}/{job['id']}").json()
    assert (found["status"], found["epochs_done"]) == ("completed", 3)
    assert [each["value"] for each in client.get(f"{JOBS}/{job['id']}/metrics").json()["items"]] == [1, 0.5, 1 / 3]
    assert client.get(f"{JOBS}/{job['id']}/logs").json()["items"][0]["text"] == "hello"
    events = client.get(f"{JOBS}/{job['id']}/events").json()["items"]
    assert [each["type"] for each in events if each["type"] == "epoch"] == ["epoch"] * 3
    stream = client.get(f"{JOBS}/{job['id']}/events/stream").text
    assert stream.count("\ndata: ") == len(events)
    assert client.get(f"{JOBS}/{job['id']}/attempts").json()["items"][0]["outcome"] == "completed"


@pytest.mark.parametrize("as_json", [False, True])
def test_a_real_job_is_followed_to_its_end(
    as_json: bool, client: TestClient, plane: ControlPlane, capfd: pytest.CaptureFixture[str]
) -> None:
    job = make(client, start=True)
    best = {"epoch": 1, "value": 0.5, "metric": "loss"}
    epoch = {"type": "epoch", "epoch": 1, "epochs": 3, "seconds": 2.0, "metrics": {"loss": 0.5}, "best": best}
    step = {"type": "progress", "epoch": 1, "epochs": 3, "step": 5, "steps": 9, "metrics": {}}
    line, checkpoint = {"type": "log", "rank": 0, "lines": ["hello"]}, {"type": "checkpoint", "epoch": 1, "best": True}
    worker, end = {"type": "worker", "rank": 0, "node": "n"}, {"type": "finished", "outcome": "completed"}
    run(plane, job["id"], worker, step, epoch, checkpoint, line, end)
    key = client.headers["authorization"].removeprefix("Bearer ")
    with Client("http://localhost", key, transport=client._transport) as follower:
        follow(follower, job["id"], as_json=as_json, verbose=True)
    said = capfd.readouterr().out
    if as_json:
        assert {"phase", "epoch", "checkpoint", "summary"} <= {json.loads(each)["event"] for each in said.splitlines()}
    else:
        assert "epoch 1/3  2s  loss 0.5 *best" in said
        assert "[worker 0] hello" in said
        assert "job 1 completed" in said


def test_figures_that_are_not_finite_do_not_break_anything(client: TestClient, plane: ControlPlane) -> None:
    job = make(client, start=True)
    epoch = {"type": "epoch", "epoch": 1, "metrics": {"loss": math.nan, "x": math.inf, "y": 1.0}, "best": {}}
    run(plane, job["id"], epoch)
    for path in ("", "/metrics", "/events"):
        assert client.get(f"{JOBS}/{job['id']}{path}").status_code == 200, path
    assert client.post(f"{JOBS}/{job['id']}/stop").status_code == 200


def test_fifty_posts_with_one_key_make_one_job(client: TestClient) -> None:
    headers = {"Idempotency-Key": "once"}
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: client.post(JOBS, json=SPEC, headers=headers), range(50)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert client.post(JOBS, json={**SPEC, "epochs": 9}, headers=headers).status_code == 409


def test_other_creates_take_no_idempotency_key(client: TestClient) -> None:
    once = {"Idempotency-Key": "once"}

    def answers(path: str, body: dict[str, Any], by: TestClient = client) -> list[int]:
        return [by.post(f"/api/v1/{path}", json=body, headers=once).status_code for _ in range(2)]

    assert answers("projects", {"name": "grove"}) == [201, 409]
    assert answers("users", {"name": "anna"}) == [201, 409]
    assert answers("keys", {"name": "laptop", "scopes": ["read"]}) == [201, 201]
    assert [key["name"] for key in client.get("/api/v1/keys").json()["items"]].count("laptop") == 2


def test_an_idempotency_key_opens_nothing_to_a_key_that_is_bound_to_projects(
    client: TestClient, plane: ControlPlane
) -> None:
    once = {"Idempotency-Key": "once"}
    bodies = {"projects": {"name": "grove"}, "users": {"name": "anna"}, "keys": {"name": "k", "scopes": ["read"]}}
    for path, body in bodies.items():
        assert client.post(f"/api/v1/{path}", json=body, headers=once).status_code == 201
    bound = plane.create_key(SYSTEM, name="bound", scopes=["admin"], projects=["orchard"])["key"]
    with connect(client.app, bound) as other:  # type: ignore[arg-type]
        for path, body in bodies.items():
            refused = [other.post(f"/api/v1/{path}", json=body, headers=once) for _ in range(2)]
            assert [answer.status_code for answer in refused] == [403, 403], path
            assert "anna" not in refused[0].text and "er_" not in refused[0].text
        mine = other.post(JOBS, json={**SPEC, "project_id": "orchard"}, headers=once).json()["id"]
    assert client.post(JOBS, json={**SPEC, "project_id": "orchard"}, headers=once).json()["id"] != mine


def test_what_is_edited_has_a_tag(client: TestClient) -> None:
    job = make(client, start=True)
    changed = client.patch(f"{JOBS}/{job['id']}", json={"priority": 3}, headers={"If-Match": job["etag"]})
    assert (changed.status_code, changed.json()["priority"]) == (200, 3)
    assert (
        client.patch(f"{JOBS}/{job['id']}", json={"priority": 4}, headers={"If-Match": job["etag"]}).status_code == 412
    )


def test_cancel_clone_resume_retry_delete(client: TestClient) -> None:
    job = make(client, start=True)
    assert client.post(f"{JOBS}/{job['id']}/cancel").json()["status"] == "cancelled"
    clone = client.post(f"{JOBS}/{job['id']}/clone", json={"changes": {"epochs": 7}})
    assert (clone.status_code, clone.json()["epochs"], clone.json()["parent"]) == (201, 7, job["id"])
    assert client.post(f"{JOBS}/{job['id']}/retry").status_code in (200, 409)
    assert client.post(f"{JOBS}/{clone.json()['id']}/cancel").status_code == 200
    assert client.delete(f"{JOBS}/{clone.json()['id']}").json()["deleted"]
    assert client.get(f"{JOBS}/{clone.json()['id']}").status_code == 404


def test_projects_users_and_keys(client: TestClient) -> None:
    assert client.post("/api/v1/projects", json={"name": "orchard"}).status_code == 409
    assert client.patch("/api/v1/projects/orchard", json={"quota_gpus": 2}).json()["quota_jobs"] is None
    user = client.post("/api/v1/users", json={"name": "anna", "projects": ["orchard"]}).json()
    key = client.post("/api/v1/keys", json={"name": "k", "scopes": ["read"], "user_id": user["id"]}).json()
    with connect(client.app, key["key"]) as other:  # type: ignore[arg-type]
        assert other.get("/api/v1/whoami").json()["projects"] == ["orchard"]
        assert client.delete(f"/api/v1/users/{user['id']}").status_code == 200
        assert other.get("/api/v1/whoami").status_code == 401
    assert client.delete("/api/v1/projects/orchard").status_code == 200
    assert client.delete("/api/v1/projects/orchard").status_code == 404


def test_every_part_says_how_it_is(client: TestClient) -> None:
    ready = client.get("/api/v1/health")
    assert {"database", "storage", "frameworks", "control"} <= set(ready.json()["parts"])


@pytest.mark.slow
def test_a_thousand_queued_jobs_are_listed_as_fast_as_ten(client: TestClient) -> None:
    def seconds() -> float:
        taken = []
        for _ in range(9):
            started = time.perf_counter()
            assert client.get(JOBS, params={"phase": "running"}).status_code == 200
            taken.append(time.perf_counter() - started)
        return sorted(taken)[4]

    for _ in range(10):
        make(client, start=True)
    few = seconds()
    for _ in range(990):
        make(client, start=True)
    assert client.get(f"{JOBS}/1000").json()["queue_position"] == 1000
    assert seconds() < 5 * few
