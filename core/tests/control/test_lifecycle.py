"""One arrow of the state machine at a time, over a real database and a cluster moved by hand."""

from __future__ import annotations

import pytest

from eagleray.contract.errors import ConfigError, StorageError, UnknownNameError
from eagleray.contract.failures import FailureKind
from eagleray.control import dispatch
from eagleray.control.commands import SYSTEM
from eagleray.control.errors import FencedError, PreconditionError
from eagleray.jobs.phases import IllegalPhaseError, Phase
from eagleray.jobs.records import JobRecords

from .conftest import House


def test_a_job_that_is_not_started_stays_created(house: House) -> None:
    job_id = house.create(start=False)
    house.tick(2)
    assert (house.job(job_id).phase, house.executor.starts) == (Phase.CREATED, {})


def test_a_started_job_is_handed_to_ray_once_under_its_own_name(house: House) -> None:
    job_id = house.create()
    house.tick(3)
    assert house.executor.starts == {f"{job_id}-1": 1}
    assert (house.job(job_id).phase, house.attempt(job_id).state) == (Phase.PREPARING, "submitted")


def test_a_whole_run_leaves_metrics_events_and_a_completed_job(house: House) -> None:
    job_id, driver = house.running()
    for epoch in (1, 2, 3, 4):
        driver.epoch(epoch, loss=1 / epoch, accuracy=epoch / 4)
        driver.checkpoint(epoch)
    driver.finish("completed")
    house.tick()
    job = house.job(job_id)
    assert (job.phase, job.status, job.epochs_done, job.resumable) == (Phase.COMPLETED, "completed", 4, False)
    assert [point.value for point in house.queries.metrics(job_id, ["accuracy"])] == [0.25, 0.5, 0.75, 1.0]
    events = [event.data for event in house.queries.events(job_id=job_id) if event.type == "phase"]
    assert [event["phase"] for event in events if event["message"] != "environment"] == [
        "created",
        "queued",
        "preparing",
        "running",
        "completed",
    ]


def test_every_event_of_one_type_has_the_same_fields(house: House) -> None:
    job_id, _driver = house.running()
    events = [event.data for event in house.queries.events(job_id=job_id) if event.type == "attempt"]
    assert events == [{"attempt": 1, "resumed_from_epoch": None}]
    (submission,) = [event.data for event in house.queries.events(job_id=job_id) if event.type == "submission"]
    assert submission == {"number": 1, "submission_id": f"{job_id}-1", "state": "submitting"}


def test_a_queued_job_says_why_it_waits(house: House) -> None:
    job_id = house.create(scaling={"num_workers": 1, "cpus_per_worker": 64})
    house.tick()
    assert house.job(job_id).reason == "it needs 1 worker with 64 CPU, more than this cluster can ever have"
    assert house.job(job_id).queue_position == 1


def test_an_epoch_that_was_saved_and_never_told_is_in_the_curve(house: House) -> None:
    job_id, driver = house.running()
    driver.epoch(1, accuracy=0.25)
    driver.say({"type": "progress", "epoch": 2, "epochs": 4, "step": 1, "steps": 4, "metrics": {}})
    driver.checkpoint(2)
    driver.finish("failed", FailureKind.WORKER_LOST, "A worker process died.")
    house.tick(2)
    saved = [{"epoch": 1, "metrics": {"accuracy": 0.25}}, {"epoch": 2, "metrics": {"accuracy": 0.5}}]
    again = {"attempt": 2, "resumed_from_epoch": 2, "saved": saved, "saved_by_attempt": 1}
    house.driver(job_id).say({"type": "attempt", **again})
    points = house.queries.metrics(job_id, ["accuracy"])
    assert [(point.epoch, point.value) for point in points] == [(1, 0.25), (2, 0.5)]
    assert house.job(job_id).progress is None, "what the dead attempt was at is no news"


def test_a_lost_worker_is_tried_again_from_the_checkpoint(house: House) -> None:
    job_id, driver = house.running()
    driver.epoch(1)
    driver.checkpoint(1)
    driver.finish("failed", FailureKind.WORKER_LOST, "A worker process died.")
    assert house.job(job_id).phase is Phase.QUEUED
    house.tick(2)
    assert house.executor.starts == {f"{job_id}-1": 1, f"{job_id}-2": 1}
    assert [attempt.outcome for attempt in house.queries.attempts(job_id)] == ["worker-lost", None]


def test_a_second_attempt_waits_until_ray_has_ended_the_first(house: House) -> None:
    job_id, driver = house.running()
    driver.say(
        {"type": "finished", "outcome": "failed", "failure": {"kind": "worker-lost", "message": "A worker died."}}
    )
    house.tick(2)
    assert f"{job_id}-2" not in house.executor.starts
    driver.end()
    house.tick(2)
    assert house.executor.starts[f"{job_id}-2"] == 1


@pytest.mark.parametrize(
    "kind", [FailureKind.OUT_OF_MEMORY, FailureKind.DATA, FailureKind.PLUGIN, FailureKind.USER], ids=str
)
def test_what_would_fail_again_fails_its_job_with_a_hint(house: House, kind: FailureKind) -> None:
    job_id, driver = house.running()
    driver.finish("failed", kind, "what happened", hint="what to do")
    job = house.job(job_id)
    assert (job.phase, job.error_message, job.hint) == (Phase.FAILED, "what happened", "what to do")
    assert job.failure_kind == kind.value


def test_a_retry_waits_for_its_pause_and_keeps_its_place(house: House) -> None:
    job_id, driver = house.running()
    queued_at = house.job(job_id).queued_at
    for _number in (1, 2):
        driver = house.driver(job_id)
        driver.run()
        driver.finish("failed", FailureKind.WORKER_LOST)
        house.tick(2)
    assert house.job(job_id).reason == "it failed and is tried again after a pause"
    assert house.job(job_id).queued_at == queued_at
    house.clock.pass_s(10)
    house.tick()
    assert house.attempt(job_id).number == 3


def test_a_bad_node_is_left_out_of_the_next_attempt(house: House) -> None:
    job_id, driver = house.running()
    driver.finish("failed", FailureKind.BAD_NODE, "ECC", node="node-0")
    house.executor.nodes.append(("node-1", {"CPU": 4.0}))
    house.tick(2)
    assert house.executor.submissions[f"{job_id}-2"].avoid_nodes == ("node-0",)


def test_a_checkpoint_buys_new_patience(house: House) -> None:
    job_id, driver = house.running(max_failures=1)
    for epoch in (1, 2, 3):
        driver.epoch(epoch)
        driver.checkpoint(epoch)
        driver.finish("failed", FailureKind.WORKER_LOST)
        house.tick(2)
        assert house.job(job_id).phase is Phase.PREPARING
        driver = house.driver(job_id)
        driver.run(resumed_from=epoch)
    driver.finish("failed", FailureKind.WORKER_LOST)
    house.tick(2)
    driver = house.driver(job_id)
    driver.finish("failed", FailureKind.WORKER_LOST)
    assert house.job(job_id).phase is Phase.FAILED


def test_stop_saves_first_and_leaves_a_resumable_job(house: House) -> None:
    job_id, driver = house.running()
    driver.epoch(1)
    driver.checkpoint(1)
    assert house.plane.stop_job(SYSTEM, job_id)["phase"] == "stopping"
    house.tick()
    assert house.executor.stops == [f"{job_id}-1"]
    driver.finish("stopped")
    assert (house.job(job_id).phase, house.job(job_id).resumable) == (Phase.CANCELLED, True)


def test_stop_of_a_waiting_job_ends_it_at_once(house: House) -> None:
    job_id = house.create(scaling={"cpus_per_worker": 64})
    assert house.plane.stop_job(SYSTEM, job_id)["phase"] == "cancelled"


def test_a_job_that_fails_while_it_stops_is_not_tried_again(house: House) -> None:
    job_id, driver = house.running()
    house.plane.stop_job(SYSTEM, job_id)
    driver.finish("failed", FailureKind.WORKER_LOST, "killed")
    assert (house.job(job_id).phase, house.job(job_id).warnings) == (
        Phase.CANCELLED,
        ["It failed while it was stopping: killed"],
    )


def test_a_stop_before_the_submit_never_starts_anything(house: House) -> None:
    job_id = house.create()
    house.executor.away = True
    house.tick()
    house.executor.away = False
    house.executor.refuse = ""
    house.plane.dispatcher._schedule()
    assert house.attempt(job_id).state == "submitting"
    house.plane.stop_job(SYSTEM, job_id)
    house.tick(2)
    assert house.executor.starts == {}
    assert house.job(job_id).phase is Phase.CANCELLED


def test_cancel_is_at_once_and_its_driver_is_fenced(house: House) -> None:
    job_id, driver = house.running()
    assert house.plane.cancel_job(SYSTEM, job_id)["phase"] == "cancelled"
    with pytest.raises(FencedError, match="it is over"):
        driver.epoch(1)
    house.tick()
    assert house.executor.stops == [f"{job_id}-1"]
    assert house.job(job_id).epochs_done == 0


def test_a_finished_job_can_be_trained_on_with_more_epochs(house: House) -> None:
    job_id, driver = house.running()
    driver.epoch(4)
    driver.finish("completed")
    house.tick()
    with pytest.raises(ConfigError, match="is complete"):
        house.plane.resume_job(SYSTEM, job_id)
    assert house.plane.resume_job(SYSTEM, job_id, epochs=8)["epochs"] == 8
    house.tick()
    assert JobRecords(house.store).load(job_id).spec["epochs"] == 8, "its driver reads it there"


def test_retry_is_for_what_has_failed(house: House) -> None:
    job_id, driver = house.running()
    with pytest.raises(IllegalPhaseError):
        house.plane.retry_job(SYSTEM, job_id)
    driver.finish("failed", FailureKind.PLUGIN)
    assert house.plane.retry_job(SYSTEM, job_id)["error_message"] is None
    house.tick(2)
    assert house.attempt(job_id).number == 2


def test_a_clone_is_a_new_job_with_the_changes(house: House) -> None:
    job_id = house.create(start=False, seed=3)
    clone = house.plane.clone_job(SYSTEM, job_id, {"epochs": 9})
    assert (clone["parent"], clone["epochs"], clone["spec"]["seed"]) == (job_id, 9, 3)


def test_priority_is_editable_only_while_the_job_waits_and_only_by_who_has_read_it(house: House) -> None:
    job_id = house.create(start=False)
    etag = house.job(job_id).etag
    changed = house.plane.set_priority(SYSTEM, job_id, 5, if_match=etag)
    assert (changed["priority"], changed["etag"]) == (5, '"2"')
    with pytest.raises(PreconditionError):
        house.plane.set_priority(SYSTEM, job_id, 6, if_match=etag)
    house.plane.start_job(SYSTEM, job_id)
    house.tick()
    with pytest.raises(IllegalPhaseError):
        house.plane.set_priority(SYSTEM, job_id, 7)


def test_a_deleted_job_is_gone_with_its_files(house: House) -> None:
    job_id, driver = house.running()
    house.store.put_bytes(f"checkpoints/test-jobs/job_{job_id}/last.pt", b"x")
    with pytest.raises(IllegalPhaseError):
        house.plane.delete_job(SYSTEM, job_id)
    driver.finish("completed")
    house.plane.delete_job(SYSTEM, job_id)
    with pytest.raises(UnknownNameError):
        house.job(job_id)
    house.tick(2)
    assert not list(house.store.list("checkpoints"))
    assert not list(house.store.list("jobs"))
    assert house.create() > job_id


def test_a_store_that_does_not_answer_keeps_files_waiting_and_no_job(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted = [house.create(start=False) for _ in range(5)]
    for job_id in deleted:
        house.plane.delete_job(SYSTEM, job_id)
    asked: list[str] = []

    def away(prefix: str) -> None:
        asked.append(prefix)
        raise StorageError("The store does not answer.")

    monkeypatch.setattr(house.store, "delete_prefix", away)
    started = house.create()
    house.plane.dispatcher.tick()
    assert (house.job(started).phase, asked) == (Phase.PREPARING, [])
    with pytest.raises(StorageError):
        house.plane.cleaner.clean()
    assert len(asked) == 3
    monkeypatch.undo()
    house.plane.cleaner.clean()
    assert [info.key for info in house.store.list("jobs")] == [f"jobs/{started}.json"]


def test_a_job_is_not_handed_over_before_the_store_has_what_it_is_to_train(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_STORE_PAUSE_S", 0.0)
    first, driver = house.running()
    driver.epoch(4)
    driver.finish("completed")
    house.tick()
    house.plane.resume_job(SYSTEM, first, epochs=8)

    def away(*_: object) -> None:
        raise StorageError("The store does not answer.")

    monkeypatch.setattr(house.store, "put_bytes", away)
    house.tick(2)
    assert f"{first}-2" not in house.executor.starts
    assert house.job(first).reason == "waits for the store: The store does not answer."
    monkeypatch.delattr(house.store, "put_bytes")
    house.tick()
    assert JobRecords(house.store).load(first).spec["epochs"] == 8
    assert house.executor.starts[f"{first}-2"] == 1
