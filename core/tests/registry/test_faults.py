"""Faults of a store and of a disk, met in the middle of an import: nothing is lost, and the next try goes through."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from eagleray.contract.errors import StorageError
from eagleray.registry import DatasetRegistry, Limits, lease
from eagleray.registry.lease import DatasetBusyError, Lease
from eagleray.storage.cache import NodeCache
from eagleray.storage.disk import DiskFullError
from eagleray.storage.local import LocalStore

Read = Callable[[Path], dict[str, bytes]]


class FaultyStore(LocalStore):
    """A store with one fault of its own."""

    fault: Callable[[str, str], None] = staticmethod(lambda method, key: None)
    after: Callable[[str, str], None] = staticmethod(lambda method, key: None)

    def put_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        self.fault("put_bytes", key)
        super().put_bytes(key, data, if_absent=if_absent)
        self.after("put_bytes", key)

    def put_file(self, key: str, path: Path, *, if_absent: bool = False) -> Any:
        self.fault("put_file", key)
        return super().put_file(key, path, if_absent=if_absent)

    def fetch_file(self, key: str, into: Path, *, sha256: str | None) -> None:
        self.fault("fetch_file", key)
        super().fetch_file(key, into, sha256=sha256)


@pytest.fixture
def store(tmp_path: Path) -> FaultyStore:
    return FaultyStore(tmp_path / "store")


@pytest.fixture
def registry(store: FaultyStore) -> DatasetRegistry:
    return DatasetRegistry(store)


def test_f13_a_store_that_refuses_for_a_while_costs_nothing_but_a_second_try(
    registry: DatasetRegistry, store: FaultyStore, folder: Path, tmp_path: Path, contents: Read
) -> None:
    refused: set[str] = set()

    def slow_down(method: str, key: str) -> None:
        if "/writers/" not in key and key not in refused and len(refused) < 6:
            refused.add(key)
            raise StorageError("503 SlowDown")

    store.fault = slow_down
    tries = 0
    while not registry.list():
        tries += 1
        with suppress(StorageError):
            registry.import_folder(folder, name="coins")
    assert tries > 1
    registry.export("coins@1", tmp_path / "out")
    assert contents(tmp_path / "out") == contents(folder)


def test_f16_a_key_that_moved_while_it_was_fetched_is_looked_up_again(
    registry: DatasetRegistry, store: FaultyStore, folder: Path, tmp_path: Path, contents: Read
) -> None:
    registry.import_folder(folder, name="coins")
    state = contents(folder)
    (folder / "train/labels/train-0000.txt").write_text("0 .5 .5 .1 .1\n")
    moved: list[str] = []

    def import_meanwhile(method: str, key: str) -> None:
        if method == "fetch_file" and not moved:
            moved.append(key)
            registry.import_folder(folder, name="coins")

    store.fault = import_meanwhile
    registry.export("coins@1", tmp_path / "out")
    assert moved
    assert contents(tmp_path / "out") == state


def test_f17_a_lost_acknowledgement_of_the_manifest_is_success(
    registry: DatasetRegistry, store: FaultyStore, folder: Path
) -> None:
    """As boto3 does: the put went through, its answer was lost, and the retry is refused."""

    def again(method: str, key: str) -> None:
        if key.endswith("versions/1.json"):
            store.after = lambda method, key: None
            store.put_bytes(key, store.get_bytes(key), if_absent=True)

    store.after = again
    assert registry.import_folder(folder, name="coins").version.number == 1
    assert [version.number for version in registry.versions("coins")] == [1]


def test_another_manifest_of_the_same_number_is_never_overwritten(
    registry: DatasetRegistry, store: FaultyStore, folder: Path
) -> None:
    registry.import_folder(folder, name="coins")
    other = registry.show("coins").model_copy(update={"number": 2, "note": "another writer's"})

    def race(method: str, key: str) -> None:
        if key.endswith("versions/2.json"):
            store.fault = lambda method, key: None
            store.put_bytes(key, other.model_dump_json().encode(), if_absent=True)

    store.fault = race
    (folder / "notes.md").write_text("changed")
    with pytest.raises(DatasetBusyError):
        registry.import_folder(folder, name="coins")
    assert registry.show("coins@2") == other


@pytest.mark.parametrize("number", range(0, 30, 3))
def test_f20_a_disk_that_fills_up_in_the_middle_leaves_the_former_version(
    number: int, registry: DatasetRegistry, store: FaultyStore, folder: Path, tmp_path: Path, contents: Read
) -> None:
    registry.import_folder(folder, name="coins")
    state = contents(folder)
    for path in (folder / "train/labels").iterdir():
        path.write_text("0 .4 .4 .1 .1\n")
    left = number

    def full(method: str, key: str) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise StorageError("no space left") from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store.fault = full
    try:
        registry.import_folder(folder, name="coins")
    except StorageError as error:
        assert "no space left" in error.message
    store.fault = lambda method, key: None
    registry.export("coins@1", tmp_path / "old")
    assert contents(tmp_path / "old") == state
    registry.import_folder(folder, name="coins")
    registry.export("coins@2", tmp_path / "new")
    assert contents(tmp_path / "new") == contents(folder)


def test_f20_a_full_disk_is_told_before_an_archive_is_unpacked(registry: DatasetRegistry, tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("data.yaml", "names: [a]")
    with pytest.raises(DiskFullError, match="bytes free"):
        registry.import_dataset(tmp_path / "a.zip", limits=Limits(min_free_bytes=1 << 60))
    assert not list(registry._settings.imports.glob("*"))


def test_a_second_writer_waits_for_the_first(store: FaultyStore) -> None:
    held: list[str] = []
    with Lease(store, "d/writers", what="it"), pytest.raises(DatasetBusyError, match="being changed by process"):
        Lease(store, "d/writers", what="it", wait_s=0.05, waiting=held.append).__enter__()
    with Lease(store, "d/writers", what="it", wait_s=0.05) as after:
        assert not after.after_a_crash


def test_a_writer_that_is_silent_for_too_long_is_taken_over_and_knows_it(
    store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lease, "_keep_alive", lambda self: None)
    first = Lease(store, "d/writers", what="it", ttl_s=0.1)
    with first, Lease(store, "d/writers", what="it", ttl_s=0.1) as second:
        assert second.after_a_crash
        second.check()
        with pytest.raises(DatasetBusyError, match="taken over"):
            first.check()


def test_a_writer_that_lives_is_not_taken_over(store: FaultyStore) -> None:
    with (
        Lease(store, "d/writers", what="it", ttl_s=0.2) as first,
        pytest.raises(DatasetBusyError),
        Lease(store, "d/writers", what="it", ttl_s=0.2, wait_s=1.0),
    ):
        pass
    assert first.after_a_crash is False


def test_a_writer_whose_process_is_dead_is_taken_over_at_once(store: FaultyStore) -> None:
    import subprocess
    import sys

    code = f"""
import os
from pathlib import Path
from eagleray.registry.lease import Lease
from eagleray.storage.local import LocalStore
Lease(LocalStore(Path({str(store.root)!r})), "d/writers", what="it").__enter__()
os._exit(1)
"""
    subprocess.run([sys.executable, "-c", code])
    with Lease(store, "d/writers", what="it", ttl_s=60, wait_s=0.5) as after:
        assert after.after_a_crash


class Sleepy(LocalStore):
    """Falls asleep once, just before it takes a number."""

    asleep: Callable[[], None] | None = None

    def put_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        asleep, self.asleep = self.asleep, None
        if asleep is not None:
            asleep()
        super().put_bytes(key, data, if_absent=if_absent)


def test_a_number_that_others_had_and_forgot_is_no_lease(tmp_path: Path) -> None:
    others = LocalStore(tmp_path)
    holder = Lease(others, "d/writers", what="it")

    def meanwhile() -> None:
        with Lease(others, "d/writers", what="it"):
            pass
        holder.__enter__()

    with Lease(others, "d/writers", what="it"):
        pass
    sleepy = Sleepy(tmp_path)
    sleepy.asleep = meanwhile
    with pytest.raises(DatasetBusyError, match="being changed by process"):
        Lease(sleepy, "d/writers", what="it", wait_s=0.05).__enter__()
    holder.check()
    holder.__exit__(None, None, None)


def test_several_writers_at_once_lose_no_version(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil
    import threading

    monkeypatch.setattr(lease, "POLL_S", 0.02)
    folders = [Path(shutil.copytree(folder, tmp_path / f"copy-{number}")) for number in range(4)]
    for number, copy in enumerate(folders):
        (copy / "notes.md").write_text(str(number))
    registry = DatasetRegistry(LocalStore(tmp_path / "shared"))
    threads = [
        threading.Thread(target=registry.import_folder, args=(copy,), kwargs={"name": "coins"}) for copy in folders
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [version.number for version in registry.versions("coins")] == [4, 3, 2, 1]
    notes = set()
    for number in range(1, 5):
        registry.export(f"coins@{number}", tmp_path / f"out-{number}")
        notes.add((tmp_path / f"out-{number}" / "notes.md").read_text())
    assert notes == {"0", "1", "2", "3"}


def test_a_second_fetch_on_a_node_reads_no_data_from_the_store(
    registry: DatasetRegistry, store: FaultyStore, folder: Path, tmp_path: Path, contents: Read
) -> None:
    first = registry.import_folder(folder, name="coins").version
    cache = NodeCache(tmp_path / "cache")
    registry.fetch(first, cache, tmp_path / "one")
    (folder / "train/labels/train-0000.txt").write_text("0 .5 .5 .1 .1\n")
    second = registry.import_folder(folder, name="coins").version
    read: list[str] = []
    store.fault = lambda method, key: read.append(key) if method == "fetch_file" else None
    registry.fetch(first, cache, tmp_path / "again")
    registry.fetch(second, cache, tmp_path / "two")
    assert len([key for key in read if "/images/" in key or "/annotations/" in key or "/objects/" in key]) <= 1
    assert contents(tmp_path / "two") == contents(folder)
