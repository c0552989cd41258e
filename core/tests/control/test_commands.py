"""Who may do what, what is made once, and what drivers' words become."""

from __future__ import annotations

import inspect
import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from eagleray.contract.errors import ConfigError, EaglerayError, UnknownNameError
from eagleray.control import errors, executor
from eagleray.control.access import hash_key
from eagleray.control.answering import METHODS
from eagleray.control.commands import SYSTEM, Caller, Commands
from eagleray.control.errors import ConflictError, ForbiddenError, RejectedError
from eagleray.control.executor import RunState, RunStatus
from eagleray.control.plane import ControlPlane
from eagleray.jobs.phases import Phase

from .conftest import SPEC, House


def caller(*scopes: str, projects: set[str] | None = None, key_id: int = 7) -> Caller:
    return Caller(key_id, None, frozenset(scopes), None if projects is None else frozenset(projects), "someone")


def test_the_control_plane_has_every_command_with_the_protocols_arguments() -> None:
    for name in METHODS:
        assert inspect.signature(getattr(ControlPlane, name)) == inspect.signature(getattr(Commands, name)), name


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for module in (errors, executor)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, EaglerayError)
    ],
)
def test_errors_travel(kind: type[EaglerayError]) -> None:
    found = pickle.loads(pickle.dumps(kind("what", "hint")))
    assert (type(found), found.message, found.hint) == (kind, "what", "hint")


def test_fifty_requests_with_one_key_make_one_job(house: House) -> None:
    def create(_: int) -> int:
        return house.create(idempotency_key="k", caller=caller("write"))

    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(create, range(50)))) == 1
    assert len(house.queries.list_jobs()[0]) == 1
    assert len(list(house.store.list("jobs"))) == 1


def test_a_key_for_another_body_is_a_conflict_and_another_callers_key_is_its_own(house: House) -> None:
    first = house.create(idempotency_key="k", caller=caller("write"))
    with pytest.raises(ConflictError, match=f"job {first}"):
        house.create(idempotency_key="k", caller=caller("write"), epochs=9)
    assert house.create(idempotency_key="k", caller=caller("write", key_id=8)) != first


def test_a_key_survives_a_restart(house: House) -> None:
    first = house.create(idempotency_key="k")
    house.restart()
    assert house.create(idempotency_key="k") == first


def test_a_reader_may_not_write(house: House) -> None:
    with pytest.raises(ForbiddenError, match="lacks the scope 'write'"):
        house.create(caller=caller("read"))


def test_another_projects_job_does_not_exist(house: House) -> None:
    job_id = house.create(project_id="birds", start=False)
    stranger = caller("write", projects={"cats"})
    for command in (house.plane.start_job, house.plane.cancel_job, house.plane.delete_job):
        with pytest.raises(UnknownNameError, match=f"Unknown job '{job_id}'"):
            command(stranger, job_id)
    with pytest.raises(UnknownNameError):
        house.queries.get_job(job_id, frozenset({"cats"}))
    assert house.queries.events(frozenset({"cats"})) == []


def test_a_caller_of_one_project_makes_jobs_in_it_and_nowhere_else(house: House) -> None:
    house.plane.create_project(SYSTEM, "cats")
    house.plane.create_project(SYSTEM, "birds")
    own = caller("write", projects={"cats"})
    assert house.plane.create_job(own, SPEC)["project_id"] == "cats"
    for name in ("birds", "nowhere"):
        with pytest.raises(UnknownNameError, match=f"Unknown project '{name}'"):
            house.plane.create_job(own, {**SPEC, "project_id": name})
    with pytest.raises(ForbiddenError, match="names no project"):
        house.plane.create_job(caller("write", projects={"cats", "birds"}), SPEC)


def test_a_project_comes_to_be_with_its_first_job_and_goes_when_it_is_empty(house: House) -> None:
    job_id = house.create(project_id="birds", start=False)
    assert [project.name for project in house.queries.projects()] == ["birds"]
    with pytest.raises(ConflictError, match="has 1 jobs"):
        house.plane.delete_project(SYSTEM, "birds")
    house.plane.delete_job(SYSTEM, job_id)
    house.tick()
    assert house.plane.delete_project(SYSTEM, "birds") == {"name": "birds", "deleted": True}


def test_a_quota_holds_a_job_back_and_lifting_it_lets_it_go(house: House) -> None:
    house.plane.create_project(SYSTEM, "birds", quota_jobs=0)
    job_id = house.create(project_id="birds")
    house.tick()
    assert house.job(job_id).reason == "project birds may run 0 jobs at once"
    house.plane.update_project(SYSTEM, "birds", quota_jobs=1, if_match='"1"')
    house.tick()
    assert house.job(job_id).phase is Phase.PREPARING


def test_a_key_is_shown_once_and_kept_as_a_hash(house: House) -> None:
    made = house.plane.create_key(SYSTEM, name="ci", scopes=["write"], projects=["birds"])
    assert made["key"].startswith(made["prefix"])
    found = house.queries.key_by_hash(hash_key(made["key"]))
    assert found is not None
    assert (found.scopes, found.projects, found.name) == (frozenset({"write"}), frozenset({"birds"}), "ci")
    assert made["key"] not in house.queries.keys()[0].model_dump_json()
    house.plane.revoke_key(SYSTEM, made["id"])
    assert house.queries.key_by_hash(hash_key(made["key"])) is None


def test_a_key_reaches_no_further_than_its_user_and_ends_with_it(house: House) -> None:
    user = house.plane.create_user(SYSTEM, "ada", projects=["birds"])
    made = house.plane.create_key(SYSTEM, name="a", scopes=["read"], projects=None, user_id=user["id"])
    found = house.queries.key_by_hash(hash_key(made["key"]))
    assert found is not None and found.projects == frozenset({"birds"})
    house.plane.delete_user(SYSTEM, user["id"])
    assert house.queries.key_by_hash(hash_key(made["key"])) is None


def test_a_key_past_its_time_is_none(house: House) -> None:
    until = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    made = house.plane.create_key(SYSTEM, name="a", scopes=["read"], projects=None, expires_at=until)
    assert house.queries.key_by_hash(hash_key(made["key"])) is None
    with pytest.raises(ConfigError, match="not a time with its offset"):
        house.plane.create_key(SYSTEM, name="a", scopes=["read"], projects=None, expires_at="tomorrow")


def test_keys_are_for_global_admins(house: House) -> None:
    for who in (caller("write"), caller("admin", projects={"birds"})):
        with pytest.raises(ForbiddenError):
            house.plane.create_key(who, name="a", scopes=["read"], projects=None)


def test_what_a_driver_sends_twice_counts_once(house: House) -> None:
    job_id, _driver = house.running()
    events = [
        {"seq": 4, "type": "epoch", "epoch": 1, "metrics": {"loss": 1.0}, "best": {}},
        {"seq": 5, "type": "log", "rank": 0, "lines": ["one", "two"]},
    ]
    for _ in range(3):
        assert house.plane.record(job_id, 1, events) == 5
    assert [line.text for line in house.queries.logs(job_id)] == ["one", "two"]
    assert house.types(job_id).count("epoch") == 1


def test_the_last_word_may_be_repeated_when_its_acknowledgement_was_lost(house: House) -> None:
    job_id, driver = house.running()
    finished = {"seq": driver.seq + 1, "type": "finished", "outcome": "completed", "failure": None}
    for _ in range(2):
        assert house.plane.record(job_id, 1, [finished]) == driver.seq + 1
    assert house.job(job_id).phase is Phase.COMPLETED


def test_metrics_that_are_no_numbers_come_back_as_they_were(house: House) -> None:
    job_id, driver = house.running()
    driver.epoch(1, loss=math.nan, worst=math.inf)
    points = {point.key: point.value for point in house.queries.metrics(job_id)}
    assert math.isnan(points["loss"]) and points["worst"] == math.inf
    assert math.isnan(house.job(job_id).metrics["loss"])


def test_metrics_are_thinned_evenly_with_first_and_last(house: House) -> None:
    job_id, driver = house.running()
    for epoch in range(1, 101):
        driver.epoch(epoch, loss=float(epoch))
    points = house.queries.metrics(job_id, max_points=5)
    assert [point.epoch for point in points] == [1, 26, 51, 75, 100]
    assert [point.epoch for point in house.queries.metrics(job_id, first_epoch=99)] == [99, 100]


def test_only_the_newest_progress_is_kept(house: House) -> None:
    job_id, driver = house.running()
    for step in range(10):
        driver.say({"type": "progress", "epoch": 1, "step": step, "steps": 10, "metrics": {}})
    assert house.types(job_id).count("progress") == 1
    progress = house.job(job_id).progress
    assert progress is not None and progress["step"] == 9


def test_printed_lines_are_capped_and_the_cap_is_said(house: House) -> None:
    house.plane._settings = type(house.plane._settings)(log_bytes=1000)
    job_id, driver = house.running()
    for _ in range(50):
        driver.say({"type": "log", "rank": 0, "lines": ["x" * 100] * 10})
    lines = house.queries.logs(job_id)
    assert len(lines) < 10
    assert lines[-1].text == "… more lines are in the log file in the store only"


def test_logs_are_paged_by_cursor_and_by_tail(house: House) -> None:
    job_id, driver = house.running()
    driver.say({"type": "log", "rank": 0, "lines": [f"line {number}" for number in range(10)]})
    first = house.queries.logs(job_id, limit=4)
    rest = house.queries.logs(job_id, after=first[-1].id)
    assert [line.text for line in first + rest] == [f"line {number}" for number in range(10)]
    assert [line.text for line in house.queries.logs(job_id, tail=2)] == ["line 8", "line 9"]


def test_an_unknown_type_of_event_of_a_newer_driver_is_kept(house: House) -> None:
    job_id, driver = house.running()
    driver.say({"type": "hologram", "depth": 3})
    assert house.queries.events(job_id=job_id)[-1].data == {"depth": 3}


def test_jobs_are_paged_by_keyset_and_filtered(house: House) -> None:
    made = [house.create(start=False, session_id=str(number % 2)) for number in range(5)]
    page, after = house.queries.list_jobs(limit=2)
    assert [view.id for view in page] == made[:-3:-1]
    rest, after = house.queries.list_jobs(after=after, limit=10)
    assert [view.id for view in rest] == made[2::-1] and after is None
    assert {view.id for view in house.queries.list_jobs(filters={"session_id": "1"})[0]} == {made[1], made[3]}
    with pytest.raises(ConfigError, match="cannot be filtered by 'colour'"):
        house.queries.list_jobs(filters={"colour": "red"})


def test_waiting_for_events_ends_with_the_event(house: House) -> None:
    seq = house.queries.newest_seq()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(house.plane.wait_for_events, seq, 20.0)
        house.create()
        assert waiting.result(5) > seq
    assert house.plane.wait_for_events(house.queries.newest_seq(), 0.01) == house.queries.newest_seq()


def test_a_ray_job_that_waits_is_admitted_and_one_that_dies_waiting_is_cancelled(house: House) -> None:
    for name in ("mine", "yours"):
        house.executor.runs[name] = RunStatus(RunState.RUNNING)
    one = house.plane.create_job(SYSTEM, SPEC, start=True, submission_id="mine")["id"]
    assert not house.plane.admission(one, 1)["admitted"]
    house.tick()
    assert house.plane.admission(one, 1)["admitted"]
    assert house.executor.starts == {}, "it runs already"
    two = house.plane.create_job(
        SYSTEM, {**SPEC, "scaling": {"cpus_per_worker": 99}}, start=True, submission_id="yours"
    )["id"]
    house.tick()
    house.executor.ended("yours")
    house.tick(3)
    assert house.job(two).phase is Phase.CANCELLED


def test_a_ray_job_that_waits_when_the_head_is_lost_keeps_its_place_and_is_started_by_us(house: House) -> None:
    house.executor.runs["mine"] = RunStatus(RunState.RUNNING)
    job_id = house.plane.create_job(SYSTEM, SPEC, start=True, submission_id="mine")["id"]
    queued_at = house.job(job_id).queued_at
    house.executor.nodes = []
    house.tick()
    house.executor.restart_head()
    house.tick(3)
    assert (house.job(job_id).phase, house.job(job_id).queued_at) == (Phase.QUEUED, queued_at)
    house.executor.nodes = [("node-0", {"CPU": 8.0})]
    house.clock.pass_s(10)
    house.tick(2)
    assert house.executor.starts == {f"{job_id}-2": 1}


def test_a_ray_job_may_not_have_the_name_of_an_attempt(house: House) -> None:
    with pytest.raises(ConfigError, match="named '2-1' cannot be") as caught:
        house.plane.create_job(SYSTEM, SPEC, start=True, submission_id="2-1")
    assert "--submission-id" in caught.value.hint
    assert house.plane.create_job(SYSTEM, SPEC, start=True, submission_id="2-1-mine")["phase"] == "queued"


def test_a_job_that_cannot_be_admitted_says_why_and_stops_no_other(house: House) -> None:
    first, second = house.create(), house.create()
    row = "INSERT INTO attempts (job_id, number, submission_id, state, message, hint, last_seq, log_bytes, created_at,"
    with house.engine.connect() as connection, connection.begin():
        values = f"released) VALUES ({second}, 9, '{first}-1', 'ended', '', '', 0, 0, '2026-01-01', 1)"
        connection.execute(text(f"{row} {values}"))
    house.tick()
    assert house.job(second).phase is Phase.PREPARING
    assert house.job(first).phase is Phase.QUEUED
    assert house.job(first).reason.startswith("it cannot be started: ")
    assert "attempts.submission_id" in house.job(first).reason and "INSERT" not in house.job(first).reason


def test_wrong_names_and_numbers_are_refused_with_what_is_valid(house: House) -> None:
    with pytest.raises(ConfigError, match="priority 2000"):
        house.create(priority=2000)
    with pytest.raises(ConfigError, match="cannot be a project's name"):
        house.plane.create_project(SYSTEM, "../etc")
    with pytest.raises(ConfigError, match="no scope 'root'"):
        house.plane.create_key(SYSTEM, name="a", scopes=["root"], projects=None)
    with pytest.raises(ConfigError, match="epochs"):
        house.create(epochs=0)


def test_texts_that_no_database_takes_are_kept_without_what_it_refuses(house: House) -> None:
    job_id, driver = house.running()
    driver.say(
        {"type": "log", "rank": 0, "lines": ["one\0two", "pictures/caf\udce9.png"]},
        {"type": "warning", "message": "pictures/caf\udce9.png"},
        {"type": "facts", "dataset": {"classes": ["a\0", "caf\udce9"]}},
    )
    assert [line.text for line in house.queries.logs(job_id)] == ["one�two", "pictures/caf�.png"]
    assert house.job(job_id).dataset == {"classes": ["a�", "caf�"]}
    assert "caf�.png" in house.job(job_id).model_dump_json()


@pytest.mark.parametrize("wrong", ["caf\udce9", "a\0b"], ids=["surrogate", "NUL"])
def test_a_job_with_texts_that_nobody_can_keep_is_refused(house: House, wrong: str) -> None:
    with pytest.raises(ConfigError, match="valid UTF-8"):
        house.create(advanced_config={"names": [wrong]})
    assert list(house.store.list("jobs")) == []


def test_a_phase_of_a_newer_driver_is_kept_and_moves_nothing(house: House) -> None:
    job_id, driver = house.running()
    driver.say({"type": "phase", "phase": "dreaming", "message": ""})
    assert house.job(job_id).phase is Phase.RUNNING
    assert house.queries.events(job_id=job_id)[-1].data["phase"] == "dreaming"


def test_an_event_without_what_it_needs_is_rejected_for_good(house: House) -> None:
    job_id, driver = house.running()
    with pytest.raises(RejectedError, match="KeyError: 'metrics'"):
        driver.say({"type": "epoch", "epoch": 1})
    assert house.job(job_id).epochs_done == 0


def test_a_deleted_jobs_id_and_idempotency_key_are_nobody_elses(house: House) -> None:
    house.plane.create_project(SYSTEM, "cats")
    own, other = caller("write", projects={"cats"}), caller("write", key_id=8)
    first = house.create(caller=own, start=False, idempotency_key="k")
    house.plane.delete_job(own, first)
    house.tick()
    house.restart()
    second = house.create(caller=other, start=False)
    assert second > first
    assert house.create(caller=own, start=False, idempotency_key="k") > second


def test_a_replayed_key_never_shows_a_job_that_its_caller_cannot_see(house: House) -> None:
    for name in ("cats", "birds"):
        house.plane.create_project(SYSTEM, name)
    first = caller("write", projects={"cats"})
    house.create(caller=first, start=False, idempotency_key="k")
    with house.engine.connect() as connection, connection.begin():
        connection.execute(text("UPDATE training_jobs SET project_id = 'birds'"))
    with pytest.raises(UnknownNameError, match="Unknown job"):
        house.create(caller=first, start=False, idempotency_key="k")


def test_ids_of_users_and_keys_are_never_given_out_again(house: House) -> None:
    user = house.plane.create_user(SYSTEM, "ada")
    key = house.plane.create_key(SYSTEM, name="a", scopes=["read"], projects=None, user_id=user["id"])
    house.plane.delete_user(SYSTEM, user["id"])
    house.restart()
    assert house.plane.create_user(SYSTEM, "bob")["id"] > user["id"]
    assert house.plane.create_key(SYSTEM, name="b", scopes=["read"], projects=None)["id"] > key["id"]


def test_whether_a_job_would_wait_is_known_before_it_is_made(house: House) -> None:
    assert house.plane.would_wait(SYSTEM, SPEC) == {"would_wait": False, "reason": ""}
    before = house.create(scaling={"cpus_per_worker": 8})
    assert house.plane.would_wait(SYSTEM, SPEC)["reason"] == "it needs 1 worker with 1 CPU, and there is no room now"
    assert house.plane.would_wait(SYSTEM, SPEC, 5) == {"would_wait": False, "reason": ""}
    large = {**SPEC, "scaling": {"cpus_per_worker": 64}}
    assert "more than this cluster can ever have" in house.plane.would_wait(SYSTEM, large)["reason"]
    house.executor.away = True
    assert house.plane.would_wait(SYSTEM, SPEC)["reason"] == "the cluster does not answer"
    assert [view.id for view in house.queries.list_jobs()[0]] == [before], "nothing is made"


def test_whether_a_job_would_wait_counts_its_projects_quota_and_tells_no_stranger(house: House) -> None:
    house.plane.create_project(SYSTEM, "birds", quota_jobs=0)
    own, stranger = caller("read", projects={"birds"}), caller("read", projects={"cats"})
    assert house.plane.would_wait(own, SPEC)["reason"] == "project birds may run 0 jobs at once"
    with pytest.raises(UnknownNameError):
        house.plane.would_wait(stranger, {**SPEC, "project_id": "birds"})
    with pytest.raises(ConfigError, match="epochs"):
        house.plane.would_wait(own, {**SPEC, "epochs": 0})
