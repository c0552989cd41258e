"""Jobs over HTTP."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient

from eagleray.jobs.phases import Phase

from .conftest import SPEC
from .fake import FakePlane

JOBS = "/api/v1/training/jobs"


def make(client: TestClient, **changes: object) -> dict[str, object]:
    answer = client.post(JOBS, json={**SPEC, **changes})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def test_a_created_job_is_where_location_says(writer: TestClient) -> None:
    answer = writer.post(JOBS, json=SPEC)
    assert answer.status_code == 201
    found = writer.get(answer.headers["location"])
    assert found.json() == answer.json()
    assert found.json()["status"] == "pending"
    assert found.json()["phase"] == "created"


def test_start_queues_at_once(writer: TestClient) -> None:
    assert make(writer, start=True)["phase"] == "queued"


def test_an_unknown_key_names_the_nearest_one(writer: TestClient) -> None:
    answer = writer.post(JOBS, json={**SPEC, "epoch": 3})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    (error,) = answer.json()["errors"]
    assert error == {"field": "epoch", "message": "unknown key; did you mean 'epochs'?", "code": "extra_forbidden"}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"epochs": 0}, "epochs"),
        ({"framework": "ekko"}, "framework"),
        ({"model_name": "nope"}, "model_name"),
        ({"task_type": "keypoint-detection"}, "task_type"),
        ({"advanced_config": {"noize_lines": 1}}, "advanced_config.noize_lines"),
        ({"project_id": "../x"}, "project_id"),
        ({"scaling": {"num_workers": -1}}, "scaling.num_workers"),
        ({"dataset_path": "a\0b"}, "body"),
        ({"seed": 2**70}, "body"),
        ({"resume": 3}, "resume"),
    ],
)
def test_a_wrong_value_names_its_field(writer: TestClient, changes: dict[str, object], field: str) -> None:
    answer = writer.post(JOBS, json={**SPEC, **changes})
    assert answer.status_code == 422, answer.text
    assert field in [error["field"] for error in answer.json()["errors"]]


def test_fifty_posts_with_one_key_make_one_job(writer: TestClient) -> None:
    headers = {"Idempotency-Key": "once"}
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: writer.post(JOBS, json=SPEC, headers=headers), range(50)))
    assert {answer.status_code for answer in answers} == {201}
    assert {answer.json()["id"] for answer in answers} == {1}
    assert len(writer.get(JOBS).json()["items"]) == 1


def test_the_same_key_with_another_body_is_refused(writer: TestClient) -> None:
    headers = {"Idempotency-Key": "once"}
    writer.post(JOBS, json=SPEC, headers=headers)
    answer = writer.post(JOBS, json={**SPEC, "epochs": 9}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


def test_pages_follow_one_another_without_gap_or_repeat(writer: TestClient) -> None:
    for _ in range(7):
        make(writer)
    seen, after = [], None
    while True:
        page = writer.get(JOBS, params={"limit": 3, "after": after} if after else {"limit": 3}).json()
        seen += [job["id"] for job in page["items"]]
        make(writer)  # a job that is made meanwhile shifts nothing
        after = page["next"]
        if after is None:
            break
    assert seen == [7, 6, 5, 4, 3, 2, 1]


def test_filters_are_joined(writer: TestClient, plane: FakePlane) -> None:
    make(writer, start=True)
    make(writer, session_id="monday", start=True)
    make(writer, session_id="monday")
    found = writer.get(JOBS, params={"session_id": "monday", "phase": ["queued", "running"]}).json()["items"]
    assert [job["id"] for job in found] == [2]


@pytest.mark.parametrize("text", ["' OR 1=1 --", "%", "_", "orchard%"])
def test_filters_match_whole_values_only(writer: TestClient, text: str) -> None:
    make(writer)
    assert writer.get(JOBS, params={"project_id": text}).json()["items"] == []


@pytest.mark.parametrize(
    "query", ["after=x", "after=1;drop", "limit=0", "limit=1000000000", "parent=99999999999999999999"]
)
def test_a_bad_page_is_refused(writer: TestClient, query: str) -> None:
    assert writer.get(f"{JOBS}?{query}").status_code == 422


def test_an_unchanged_job_is_not_sent_again(writer: TestClient) -> None:
    make(writer)
    etag = writer.get(f"{JOBS}/1").headers["etag"]
    assert writer.get(f"{JOBS}/1", headers={"If-None-Match": etag}).status_code == 304
    writer.post(f"{JOBS}/1/start")
    assert writer.get(f"{JOBS}/1", headers={"If-None-Match": etag}).status_code == 200


def test_of_two_editors_the_second_is_told(writer: TestClient) -> None:
    etag = str(make(writer, start=True)["etag"])
    assert writer.patch(f"{JOBS}/1", json={"priority": 5}, headers={"If-Match": etag}).json()["priority"] == 5
    answer = writer.patch(f"{JOBS}/1", json={"priority": 6}, headers={"If-Match": etag})
    assert (answer.status_code, answer.json()["code"]) == (412, "precondition")


def test_a_job_goes_its_way(writer: TestClient, plane: FakePlane) -> None:
    make(writer)
    assert writer.post(f"{JOBS}/1/start").json()["phase"] == "queued"
    assert writer.post(f"{JOBS}/1/cancel").json()["status"] == "cancelled"
    assert writer.post(f"{JOBS}/1/resume", json={"epochs": 9}).json()["phase"] == "queued"
    plane.happen(1, "phase", phase=Phase.FAILED)
    assert writer.post(f"{JOBS}/1/retry").json()["phase"] == "queued"
    clone = writer.post(f"{JOBS}/1/clone", json={"changes": {"epochs": 5}})
    assert (clone.status_code, clone.json()["epochs"], clone.json()["parent"]) == (201, 5, 1)
    writer.post(f"{JOBS}/1/cancel")
    assert writer.delete(f"{JOBS}/1").json() == {"id": 1, "deleted": True}
    assert writer.get(f"{JOBS}/1").status_code == 404


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"epoch": 3}, "changes.epoch", "unknown key; did you mean 'epochs'?"),
        ({"epochs": 0}, "changes.epochs", None),
        ({"model_name": "nope"}, "changes.model_name", None),
        (
            {"advanced_config": {"noize_lines": 1}},
            "changes.advanced_config.noize_lines",
            "unknown key; did you mean 'noise_lines'?",
        ),
        ({"resume": 3}, "changes.resume", None),
    ],
)
def test_a_clone_is_checked_as_a_new_job_is(
    writer: TestClient, changes: dict[str, object], field: str, message: str | None
) -> None:
    make(writer)
    answer = writer.post(f"{JOBS}/1/clone", json={"changes": changes})
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert error["field"] == field
    assert message in (None, error["message"])


def test_what_a_phase_does_not_allow_is_a_conflict(writer: TestClient) -> None:
    make(writer)
    answer = writer.post(f"{JOBS}/1/resume")
    assert (answer.status_code, answer.json()["code"]) == (409, "phase")


def test_metrics_by_key_and_range(writer: TestClient, plane: FakePlane) -> None:
    make(writer)
    plane.fill(1, epochs=100)
    found = writer.get(f"{JOBS}/1/metrics", params={"keys": "loss", "first_epoch": 11, "max_points": 3}).json()["items"]
    assert [(point["key"], point["epoch"]) for point in found] == [("loss", 11), ("loss", 56), ("loss", 100)]


def test_logs_by_page_and_tail(writer: TestClient, plane: FakePlane) -> None:
    make(writer)
    plane.fill(1, lines=5)
    first = writer.get(f"{JOBS}/1/logs", params={"limit": 2}).json()
    second = writer.get(f"{JOBS}/1/logs", params={"limit": 3, "after": first["next"]}).json()
    assert [line["text"] for line in first["items"] + second["items"]] == [f"line {number}" for number in range(5)]
    tail = writer.get(f"{JOBS}/1/logs", params={"tail": 2}).json()
    assert [line["text"] for line in tail["items"]] == ["line 3", "line 4"]


def test_a_drivers_lines_are_those_of_rank_minus_one(writer: TestClient, plane: FakePlane) -> None:
    make(writer)
    plane.fill(1, lines=2)
    plane.print_line(1, rank=-1, text="installing torch")
    found = writer.get(f"{JOBS}/1/logs", params={"rank": -1}).json()["items"]
    assert [line["text"] for line in found] == ["installing torch"]


def test_attempts_are_listed(writer: TestClient, plane: FakePlane) -> None:
    make(writer)
    plane.fill(1)
    assert [each["submission_id"] for each in writer.get(f"{JOBS}/1/attempts").json()["items"]] == ["1-1"]
