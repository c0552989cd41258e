"""A job's record gets to the store in the end, and a store that is away holds nobody up."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from eagleray.contract.errors import StorageError
from eagleray.jobs.phases import Phase
from eagleray.jobs.records import JobRecords, MetricsFile, note_artifacts
from eagleray.jobs.run_record import RunRecord
from eagleray.settings import Settings
from eagleray.storage.local import LocalStore
from eagleray.storage.pending import finish_pending

FIELDS: dict[str, Any] = {
    "framework": "echo",
    "model_name": "echo-linear",
    "task_type": "image-classification",
    "dataset_path": "pictures",
    "dataset_format": "imagefolder",
    "epochs": 9,
    "batch_size": 4,
}


class BucketLike(LocalStore):
    """A folder with a bucket's limit of writes, that can be away."""

    away = False
    writes = 0

    @property
    def write_interval_s(self) -> float:
        return 0.05

    def put_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        if self.away:
            raise StorageError("Nothing answers.")
        self.writes += 1
        super().put_bytes(key, data, if_absent=if_absent)


@pytest.fixture
def store(tmp_path: Path) -> BucketLike:
    return BucketLike(tmp_path / "store")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "home", "", frozenset(), upload_grace_s=0.3)


@pytest.fixture
def run(store: BucketLike) -> RunRecord:
    made = RunRecord(store, JobRecords(store).create(FIELDS), lambda event: None)
    made.advance(Phase.QUEUED, "")
    made.begin_attempt(None)
    made.advance(Phase.RUNNING, "")
    return made


def report(run: RunRecord, epoch: int) -> None:
    best = {"value": None, "epoch": 0, "metric": "accuracy"}
    run.add_epoch({"epoch": epoch, "metrics": {"loss": 1.0 / epoch}, "best": best})


def test_the_record_is_there_when_it_is_flushed(store: BucketLike, run: RunRecord, settings: Settings) -> None:
    for epoch in (1, 2, 3):
        report(run, epoch)
    run.finish(Phase.COMPLETED, "")
    run.flush(settings)
    record = JobRecords(store).load(1)
    assert (record.phase, record.epochs_done, record.warnings) == (Phase.COMPLETED, 3, [])
    assert [row.epoch for row in MetricsFile(store, record.prefix).read()] == [1, 2, 3]


def test_a_save_of_nothing_new_is_no_write(store: BucketLike, run: RunRecord, settings: Settings) -> None:
    run.flush(settings)
    before = store.writes
    run.save()
    run.flush(settings)
    assert store.writes == before


def test_epochs_go_on_while_the_store_is_away_and_the_record_waits_on_the_node(
    store: BucketLike, run: RunRecord, settings: Settings
) -> None:
    run.flush(settings)
    store.away = True
    started = time.monotonic()
    for epoch in range(1, 10):
        report(run, epoch)
    assert time.monotonic() - started < 0.3
    run.finish(Phase.COMPLETED, "")
    run.flush(settings)
    assert "The job's record cannot be saved yet: Nothing answers." in run.record.warnings
    assert JobRecords(store).load(1).phase is Phase.RUNNING
    store.away = False
    sent = finish_pending(store, settings.pending).sent
    assert sorted(item.kind for item in sent) == ["file", "record"]
    record = JobRecords(store).load(1)
    assert (record.phase, record.epochs_done) == (Phase.COMPLETED, 9)
    assert len(MetricsFile(store, record.prefix).read()) == 9
    assert list(settings.pending.iterdir()) == []


def test_a_fenced_driver_leaves_nothing_behind(store: BucketLike, run: RunRecord, settings: Settings) -> None:
    run.flush(settings)
    store.away = True
    report(run, 1)
    run.fenced = True
    run.flush(settings)
    assert not settings.pending.exists()


def test_files_that_come_after_the_end_are_named(store: BucketLike, run: RunRecord, settings: Settings) -> None:
    run.finish(Phase.COMPLETED, "")
    run.flush(settings)
    assert JobRecords(store).load(1).artifacts.last is None
    store.put_bytes(f"{run.prefix}/last.pt", b"m")
    note_artifacts(store, 1)
    note_artifacts(store, 404)
    record = JobRecords(store).load(1)
    assert record.artifacts.last == f"{store.location}/{run.prefix}/last.pt"
    assert not record.resumable


def test_a_checkpoint_that_comes_after_the_end_makes_a_stopped_job_resumable(
    store: BucketLike, run: RunRecord, settings: Settings
) -> None:
    report(run, 1)
    run.finish(Phase.CANCELLED, "stopped")
    run.flush(settings)
    assert not JobRecords(store).load(1).resumable
    store.put_bytes(f"{run.prefix}/last.pt", b"m")
    note_artifacts(store, 1)
    assert JobRecords(store).load(1).resumable


def test_a_store_that_is_away_at_the_end_does_not_take_a_checkpoint_that_it_has_confirmed(
    store: BucketLike, run: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise StorageError("Nothing answers.")

    monkeypatch.setattr(store, "list", away)
    run.note_checkpoint()
    run.finish(Phase.CANCELLED, "stopped")
    assert run.record.resumable
