"""What only a folder can get wrong: links, leftovers, full disks, kills."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from eagleray.contract.errors import StorageError
from eagleray.storage.checkpoints import Checkpoints
from eagleray.storage.local import LocalStore
from eagleray.storage.opening import open_store
from eagleray.storage.store import TEMPORARY_PREFIX
from eagleray.testing.disk import small_disk


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.mark.parametrize("location", ["gs://x", "", "  ", "a\0b"])
def test_what_is_no_folder_is_refused(location: str) -> None:
    with pytest.raises(StorageError):
        open_store(location)


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="is a file"):
        open_store(str(tmp_path / "file"))


def test_a_tilde_is_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_store("~/kept").location == str(tmp_path / "kept")


def test_opening_and_looking_make_nothing(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "new"))
    assert not store.exists("a")
    assert list(store.list("")) == []
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("link", ["file", "folder"])
def test_a_link_never_leads_out(store: LocalStore, tmp_path: Path, link: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    store.put_bytes("a/good", b"")
    target, key = (outside / "secret", "a/link") if link == "file" else (outside, "a/link/secret")
    (store.root / "a" / "link").symlink_to(target)
    for attempt in (
        lambda: store.get_bytes(key),
        lambda: store.put_bytes(key, b"pwned"),
        lambda: store.delete_prefix(key),
        lambda: store.exists(key),
    ):
        with pytest.raises(StorageError, match="leads out of the store"):
            attempt()
    assert (outside / "secret").read_bytes() == b"secret"
    assert [info.key for info in store.list("")] == ["a/good"]


def test_a_link_within_the_store_is_fine(store: LocalStore) -> None:
    store.put_bytes("a/real", b"x")
    (store.root / "a" / "link").symlink_to("real")
    assert store.get_bytes("a/link") == b"x"
    assert [info.key for info in store.list("a")] == ["a/link", "a/real"]


def test_deleting_a_prefix_never_follows_a_link(store: LocalStore) -> None:
    store.put_bytes("kept/x", b"x")
    (store.root / "alias").symlink_to("kept")
    with pytest.raises(StorageError, match="is a link"):
        store.delete_prefix("alias")
    assert store.exists("kept/x")


def test_leftovers_are_not_listed_and_go_after_a_day(store: LocalStore) -> None:
    store.put_bytes("a/x", b"")
    young, old = (store.root / "a" / f"{TEMPORARY_PREFIX}{name}" for name in ("young", "old"))
    young.touch()
    old.touch()
    os.utime(old, (time.time() - 25 * 3600,) * 2)
    assert [info.key for info in store.list("")] == ["a/x"]
    assert young.exists()
    assert not old.exists()


def test_a_failed_write_leaves_the_old_bytes_and_no_leftover(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put_bytes("a", b"old")

    def broken(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(StorageError, match="Input/output error"):
        store.put_bytes("a", b"new")
    assert store.get_bytes("a") == b"old"
    assert [path.name for path in store.root.iterdir()] == ["a"]


def test_a_write_is_synced_before_it_gets_its_name_and_its_folder_after(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put_bytes("a/x", b"")
    steps: list[str] = []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        real_fsync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        steps.append("name")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    store.put_bytes("a/x", b"new")
    assert steps == ["file", "name", "folder"]


def test_a_lost_answer_to_its_own_link_is_no_refusal(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.link

    def twice(source: Path, target: Path) -> None:
        real(source, target)
        real(source, target)

    monkeypatch.setattr(os, "link", twice)
    store.put_bytes("a", b"x", if_absent=True)
    assert store.get_bytes("a") == b"x"


def test_a_file_system_without_hard_links_is_named(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(source: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(StorageError, match="no hard links"):
        store.put_bytes("a", b"x", if_absent=True)


def test_a_file_is_readable_by_whom_the_umask_allows(store: LocalStore) -> None:
    old = os.umask(0o022)
    try:
        store.put_bytes("a", b"x")
    finally:
        os.umask(old)
    assert (store.root / "a").stat().st_mode & 0o777 == 0o644


@pytest.mark.fault
def test_a_writer_killed_at_any_time_leaves_old_or_new_bytes(store: LocalStore) -> None:
    script = (
        "import sys; from eagleray.storage.opening import open_store\n"
        "store = open_store(sys.argv[1]); print('up', flush=True)\n"
        "while True:\n"
        "    for byte in (b'a', b'b'): store.put_bytes('x', byte * 2_000_000)\n"
    )
    store.put_bytes("x", b"a" * 2_000_000)
    for delay_s in (0.001, 0.01, 0.03, 0.1):
        writer = subprocess.Popen([sys.executable, "-c", script, store.location], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(delay_s)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        assert store.get_bytes("x") in (b"a" * 2_000_000, b"b" * 2_000_000)
        assert [info.key for info in store.list("")] == ["x"]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small", "1m") as folder:
        yield folder


def _commit(checkpoints: Checkpoints, folder: Path, epoch: int, size_bytes: int) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "model.pt").write_bytes(os.urandom(size_bytes))
    checkpoints.commit(
        folder,
        job_id=1,
        attempt=1,
        epoch=epoch,
        metrics={},
        portable_file="model.pt",
        is_best=False,
        best_value=None,
        best_epoch=None,
    )


@pytest.mark.fault
def test_a_full_disk_is_named_with_its_free_space_and_spares_what_was_committed(disk: Path, tmp_path: Path) -> None:
    checkpoints = Checkpoints(LocalStore(disk / "store"), "job")
    _commit(checkpoints, tmp_path / "save", 1, 200_000)
    with pytest.raises(StorageError, match=r"no space left in .*small.*bytes free"):
        _commit(checkpoints, tmp_path / "save", 2, 2_000_000)
    said: list[str] = []
    manifest = checkpoints.newest_valid(said.append)
    assert manifest is not None
    assert manifest.epoch == 1
    assert not [path for path in disk.rglob("*") if path.name.startswith(TEMPORARY_PREFIX)]
    _commit(checkpoints, tmp_path / "save", 2, 100_000)
    newest = checkpoints.newest_valid(said.append)
    assert newest is not None
    assert newest.epoch == 2
