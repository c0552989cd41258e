"""Ids never collide, records are whole, an epoch has one row."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from eagleray.contract.errors import ConfigError, StorageError, UnknownNameError
from eagleray.jobs.phases import IllegalPhaseError, JobStatus, Phase
from eagleray.jobs.records import AttemptRecord, BestRecord, EpochMetrics, JobRecords, MetricsFile
from eagleray.storage.local import LocalStore

FIELDS: dict[str, Any] = {
    "framework": "ultralytics",
    "model_name": "yolo11n",
    "task_type": "object-detection",
    "dataset_path": "/data/cats",
    "dataset_format": "dice",
    "epochs": 2,
    "batch_size": 16,
}


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def records(store: LocalStore) -> JobRecords:
    return JobRecords(store)


def test_ids_count_from_one(records: JobRecords) -> None:
    assert [records.create(FIELDS).id for _ in range(3)] == [1, 2, 3]


def test_an_id_follows_the_highest_and_ignores_strangers(records: JobRecords, store: LocalStore) -> None:
    for name in ("9.json", "010.json", "notes.txt", "x.json", "99/1.json"):
        store.put_bytes(f"jobs/{name}", b"{}")
    assert records.create(FIELDS).id == 10


RACER = """
import sys
from pathlib import Path
from eagleray.jobs.records import JobRecords
from eagleray.storage.local import LocalStore
records = JobRecords(LocalStore(Path(sys.argv[1])))
print("ready", flush=True)
sys.stdin.readline()
print(records.create({**eval(sys.argv[2]), "created_by": sys.argv[3]}).id)
"""


@pytest.mark.fault
def test_sixteen_racing_processes_get_sixteen_ids(records: JobRecords, store: LocalStore) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, store.location, repr(FIELDS), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(16)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    ids = {int(racer.communicate(timeout=60)[0]): str(number) for number, racer in enumerate(racers)}
    assert sorted(ids) == list(range(1, 17))
    assert {job_id: records.load(job_id).created_by for job_id in ids} == ids


@pytest.mark.fault
def test_a_kill_just_after_the_create_leaves_a_whole_record(records: JobRecords, store: LocalStore) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RACER, store.location, repr(FIELDS), "me"],
        input="go\n",
        text=True,
        check=False,
        capture_output=True,
        env={**os.environ, "EAGLERAY_FAILPOINTS": "job.after_create:kill"},
    )
    assert done.returncode == -signal.SIGKILL
    assert records.load(1).created_by == "me"
    assert records.create(FIELDS).id == 2


def test_a_record_comes_back_as_it_was_saved(records: JobRecords) -> None:
    record = records.create({**FIELDS, "batch_size": "auto", "project_id": "cats", "spec": {"seed": 3}})
    record.advance(Phase.QUEUED)
    record.attempts.append(AttemptRecord(number=1, resumed_from_epoch=2))
    record.best = BestRecord(epoch=1, value=float("nan"), metric="metrics/mAP50")
    record.warnings.append("slow disk")
    records.save(record)
    loaded = records.load(record.id)
    assert loaded.model_dump_json() == record.model_dump_json()
    assert loaded.prefix == "checkpoints/projects/cats/jobs/1"
    assert loaded.updated_at > loaded.created_at


def test_the_status_follows_the_phase(records: JobRecords) -> None:
    record = records.create({**FIELDS, "status": "completed"})
    assert record.status is JobStatus.PENDING
    for phase in (Phase.QUEUED, Phase.PREPARING, Phase.RUNNING):
        record.advance(phase)
    assert record.model_dump(mode="json")["status"] == "running"


def test_a_record_refuses_an_illegal_phase_and_stays(records: JobRecords) -> None:
    record = records.create(FIELDS)
    with pytest.raises(IllegalPhaseError):
        record.advance(Phase.COMPLETED)
    assert record.phase is Phase.CREATED


def test_a_resumed_record_is_queued_without_its_old_error(records: JobRecords) -> None:
    record = records.create(FIELDS)
    record.advance(Phase.FAILED)
    record.error_message = "out of memory"
    record.resume()
    assert record.phase is Phase.QUEUED
    assert not record.error_message


@pytest.mark.parametrize("wrong", [{"epoch": 3}, {"epochs": 0}, {"batch_size": "big"}, {"framework": None}])
def test_a_wrong_field_is_named_and_takes_no_id(records: JobRecords, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        records.create({**FIELDS, **wrong})
    assert list(records.list()) == []


def test_an_unknown_job_names_the_recent_ones(records: JobRecords) -> None:
    for _ in range(12):
        records.create(FIELDS)
    with pytest.raises(UnknownNameError, match="Unknown job '44'") as caught:
        records.load(44)
    assert "12, 11, 10, 9, 8, 7, 6, 5, 4, 3." in caught.value.hint


def test_an_unknown_job_in_an_empty_store_says_so(records: JobRecords) -> None:
    with pytest.raises(UnknownNameError, match="no job there yet"):
        records.load(1)


def test_jobs_are_listed_newest_first_and_a_broken_one_hides_no_other(
    records: JobRecords, store: LocalStore, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(11):
        records.create(FIELDS)
    store.put_bytes("jobs/10.json", b'{"id": 10')
    with caplog.at_level(logging.WARNING):
        assert [record.id for record in records.list()] == [11, *range(9, 0, -1)]
    assert "record of job 10 cannot be read" in caplog.text


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff\xfe"])
def test_a_broken_record_is_a_storage_error_naming_the_file(
    records: JobRecords, store: LocalStore, content: bytes
) -> None:
    store.put_bytes("jobs/1.json", content)
    with pytest.raises(StorageError, match=r"jobs/1\.json"):
        records.load(1)


def test_a_record_under_another_id_is_refused(records: JobRecords, store: LocalStore) -> None:
    records.create(FIELDS)
    store.copy("jobs/1.json", "jobs/5.json")
    with pytest.raises(StorageError, match="is of job 1"):
        records.load(5)


def row(epoch: int, attempt: int = 1, loss: float = 1.0) -> EpochMetrics:
    return EpochMetrics(epoch=epoch, attempt=attempt, metrics={"loss": loss})


def test_metrics_come_back_by_epoch(store: LocalStore) -> None:
    metrics = MetricsFile(store, "job")
    assert metrics.read() == []
    rows = [row(2), row(1)]
    for each in rows:
        metrics.append(each)
    assert metrics.read() == rows[::-1]
    assert len(store.get_bytes("job/metrics.jsonl").splitlines()) == 2


def test_of_two_rows_of_an_epoch_the_newer_attempts_stays(store: LocalStore) -> None:
    metrics = MetricsFile(store, "job")
    metrics.merge([row(1), row(2), row(3)])
    metrics.merge([row(2, attempt=2, loss=0.5), row(3, attempt=2)])
    metrics.append(row(3, attempt=1, loss=9.0))
    metrics.append(row(2, attempt=2, loss=0.4))
    assert [(each.epoch, each.attempt, each.metrics["loss"]) for each in metrics.read()] == [
        (1, 1, 1.0),
        (2, 2, 0.4),
        (3, 2, 1.0),
    ]


def test_rows_are_replaced_whole(store: LocalStore) -> None:
    metrics = MetricsFile(store, "job")
    metrics.merge([row(1), row(2)])
    metrics.replace([row(1, attempt=2)])
    assert [(each.epoch, each.attempt) for each in metrics.read()] == [(1, 2)]


def test_a_loss_that_is_no_number_survives(store: LocalStore) -> None:
    metrics = MetricsFile(store, "job")
    metrics.append(row(1, loss=float("inf")))
    assert metrics.read()[0].metrics["loss"] == float("inf")


def test_broken_metrics_are_a_storage_error_naming_the_file(store: LocalStore) -> None:
    store.put_bytes("job/metrics.jsonl", b'{"epoch": 1')
    with pytest.raises(StorageError, match=r"job/metrics\.jsonl"):
        MetricsFile(store, "job").read()
