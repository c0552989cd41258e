"""Uploads go on beside training, wait for a store that is away, and end no run."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from eagleray.contract.errors import StorageError
from eagleray.execution import uploads
from eagleray.execution.uploads import Uploads
from eagleray.settings import Settings
from eagleray.storage.checkpoints import Checkpoints
from eagleray.storage.disk import DiskFullError
from eagleray.storage.local import LocalStore
from eagleray.storage.pending import finish_pending, list_pending
from eagleray.storage.s3.options import S3Options
from eagleray.storage.s3.store import S3Store
from eagleray.storage.store import FileEntry
from eagleray.testing.disk import small_disk
from eagleray.testing.s3_server import seaweed

PREFIX = "checkpoints/test-jobs/job_1"
PAYLOAD = {"job_id": 1, "attempt": 1, "prefix": PREFIX, "portable_file": "model.pt"}


def write(folder: Path, data: bytes) -> None:
    (folder / "model.pt").write_bytes(data)


class ShakyStore(LocalStore):
    """A folder that can be away, or slow, as a server can."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.away = False
        self.slow_s = 0.0

    def put_file(self, key: str, path: Path, *, if_absent: bool = False) -> FileEntry:
        time.sleep(self.slow_s)
        if self.away:
            raise StorageError("Nothing answers.")
        return super().put_file(key, path, if_absent=if_absent)


class Run:
    def __init__(self, folder: Path, grace_s: float = 0.3) -> None:
        self.store = ShakyStore(folder / "store")
        self.settings = Settings(folder / "home", "", frozenset(), upload_grace_s=grace_s)
        self.sent: list[dict[str, Any]] = []
        self.uploads = Uploads(self.store, self.settings, PAYLOAD, self.sent.append)

    def save(self, epoch: int, *, best: bool = False, size_bytes: int = 10) -> None:
        def save(folder: Path) -> None:
            (folder / "model.pt").write_bytes(bytes([epoch % 256]) * size_bytes)

        facts = {"metrics": {"loss": 1.0}, "best_value": None, "best_epoch": None, "recent": {}}
        self.uploads.checkpoint(save, epoch, best, facts)

    def stored(self) -> list[int]:
        return [message["epoch"] for message in self.sent if message["type"] == "checkpoint"]

    def newest(self) -> int:
        manifest = Checkpoints(self.store, PREFIX).newest_valid(pytest.fail)
        assert manifest is not None
        return manifest.epoch


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "RETRY_BASE_S", 0.01)
    monkeypatch.setattr(uploads, "RETRY_CAP_S", 0.05)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    made = Run(tmp_path)
    yield made
    made.store.away = False
    if made.uploads._thread.is_alive():
        made.uploads.close()


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_every_checkpoint_gets_there_and_nothing_is_left(run: Run) -> None:
    for epoch in (1, 2, 3):
        run.save(epoch)
        until(lambda: not list_pending(run.settings.pending))
    run.uploads.close()
    assert run.stored() == [1, 2, 3]
    assert run.newest() == 3
    assert list(run.settings.pending.iterdir()) == []
    assert run.uploads.warnings == []


def test_training_never_waits_for_a_slow_store(run: Run) -> None:
    """C10"""
    run.store.slow_s = 0.3
    started = time.monotonic()
    for epoch in range(1, 21):
        run.save(epoch, best=epoch == 4)
    assert time.monotonic() - started < 0.3
    waiting = list_pending(run.settings.pending)
    assert len(waiting) <= 4, "the disk stays bounded"
    run.store.slow_s = 0.0
    run.uploads.close()
    assert run.newest() == 20
    assert 4 in run.stored(), "the best is not replaced by newer ones"
    assert len(run.stored()) < 20


def test_f14_an_outage_delays_what_counts_and_is_said_once(run: Run) -> None:
    """C10"""
    run.save(1)
    until(lambda: run.stored() == [1])
    run.store.away = True
    for epoch in range(2, 30):
        run.save(epoch, best=epoch == 7)
        time.sleep(0.005)
    size = sum(path.stat().st_size for path in run.settings.pending.rglob("model.pt"))
    assert size <= 40
    run.store.away = False
    until(lambda: run.stored()[-1] == 29)
    run.uploads.close()
    assert 7 in run.stored()
    assert [warning for warning in run.uploads.warnings if "cannot be stored yet" in warning] == [
        run.uploads.warnings[0]
    ]
    assert "takes uploads again" in run.uploads.warnings[-1]
    assert list(run.settings.pending.iterdir()) == []


def test_f14_a_job_that_ends_in_an_outage_keeps_what_waits_and_says_how_it_is_sent(run: Run) -> None:
    run.store.away = True
    run.save(1, best=True)
    run.save(2)
    started = time.monotonic()
    run.uploads.close()
    assert time.monotonic() - started < 3
    assert "eagleray storage retry" in run.uploads.warnings[-1]
    run.store.away = False
    assert [item.epoch for item in finish_pending(run.store, run.settings.pending).sent] == [1, 2]
    assert run.newest() == 2


def test_an_upload_that_is_only_slow_is_waited_for_at_the_end(tmp_path: Path) -> None:
    run = Run(tmp_path, grace_s=0.05)
    run.store.slow_s = 0.5
    run.save(1)
    run.uploads.close()
    assert run.stored() == [1]


def test_files_follow_the_checkpoints_in_their_order(run: Run, tmp_path: Path) -> None:
    """C13"""
    run.store.slow_s = 0.05
    run.save(1, best=True)
    (tmp_path / "best.pt").write_bytes(b"stripped")
    run.uploads.file(tmp_path / "best.pt", f"{PREFIX}/best.pt")
    (tmp_path / "best.pt").unlink()
    run.uploads.close()
    assert run.store.get_bytes(f"{PREFIX}/best.pt") == b"stripped"


def test_a_file_that_cannot_be_read_is_a_warning(run: Run, tmp_path: Path) -> None:
    run.uploads.file(tmp_path / "none.png", f"{PREFIX}/files/none.png")
    assert "none.png could not be stored" in run.uploads.warnings[0]


def test_weights_that_differ_from_those_kept_are_a_warning(run: Run, tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(b"one")
    run.uploads.weights(tmp_path / "w.pt", "echo", "w")
    (tmp_path / "w.pt").write_bytes(b"two")
    run.uploads.weights(tmp_path / "w.pt", "echo", "w")
    run.uploads.close()
    assert (
        "Other weights are kept" in run.uploads.warnings[-1]
        or run.store.get_bytes("pretrained_weights/echo/w.pt") == b"two"
    )


def test_what_the_framework_raises_in_saving_is_raised(run: Run) -> None:
    def broken(folder: Path) -> None:
        raise RuntimeError("the framework failed")

    with pytest.raises(RuntimeError, match="the framework failed"):
        run.uploads.checkpoint(broken, 1, False, {})


def test_two_threads_may_hand_things_in(run: Run) -> None:
    threads = [threading.Thread(target=run.save, args=(epoch,)) for epoch in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.uploads.close()
    assert list(run.settings.pending.iterdir()) == []


@pytest.mark.fault
def test_f14_a_real_server_that_dies_and_comes_back_gets_everything_that_counts(tmp_path: Path) -> None:
    (tmp_path / "s3").mkdir()
    quick = S3Options(base_s=0.01, cap_s=0.1, write_interval_s=0.02, connect_timeout_s=1, read_timeout_s=2)
    with seaweed(tmp_path / "s3") as server:
        server.make_bucket("jobs")
        store = S3Store.open("s3://jobs/x", server.access, quick)
        settings = Settings(tmp_path / "home", "", frozenset(), upload_grace_s=60)
        sent: list[dict[str, Any]] = []
        sending = Uploads(store, settings, PAYLOAD, sent.append)
        facts: dict[str, Any] = {"metrics": {}, "best_value": None, "best_epoch": None, "recent": {}}
        slowest_s, waiting = 0.0, 0
        for epoch in range(1, 61):
            started = time.monotonic()
            data = bytes([epoch]) * 200_000
            sending.checkpoint(partial(write, data=data), epoch, epoch == 25, facts)
            slowest_s = max(slowest_s, time.monotonic() - started)
            if epoch == 20:
                server.kill()
            if epoch == 50:
                server.start()
            with suppress(FileNotFoundError):  # what is sent goes while it is counted
                waiting = sum(path.stat().st_size for path in settings.pending.rglob("model.pt"))
            assert waiting <= 5 * 200_000
            time.sleep(0.05)
        sending.close()
        assert slowest_s < 1
        checkpoints = Checkpoints(store, PREFIX)
        newest = checkpoints.newest_valid(pytest.fail)
        assert newest is not None
        assert newest.epoch == 60
        assert 25 in [manifest.epoch for manifest in checkpoints.all()]
        assert store.get_bytes(f"{PREFIX}/best.pt") == bytes([25]) * 200_000
        assert list(settings.pending.iterdir()) == []
        store.close()


@pytest.mark.fault
def test_f20_the_cache_gives_way_to_a_checkpoint_and_then_the_disk_is_named(tmp_path: Path) -> None:
    with small_disk(tmp_path / "home", "24m") as home:
        run = Run(tmp_path)
        cached = home / "cache" / "files" / "ab" / ("ab" * 32)
        cached.parent.mkdir(parents=True)
        cached.write_bytes(os.urandom(16 << 20))

        def save(folder: Path) -> None:
            (folder / "model.pt").write_bytes(os.urandom(12 << 20))

        facts: dict[str, Any] = {"metrics": {}, "best_value": None, "best_epoch": None, "recent": {}}
        run.uploads.checkpoint(save, 1, False, facts)
        assert not cached.exists()
        run.store.away = True
        with pytest.raises(DiskFullError, match="epoch 2 cannot be saved: no space left"):
            run.uploads.checkpoint(
                lambda folder: (folder / "model.pt").write_bytes(os.urandom(30 << 20)), 2, False, facts
            )
        run.store.away = False
        run.uploads.close()
        assert run.newest() == 1
