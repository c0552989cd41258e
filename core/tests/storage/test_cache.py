"""The node's cache fetches once, never serves bad bytes, keeps what is in use, and survives being killed."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from eagleray.contract.errors import StorageError
from eagleray.storage.cache import NodeCache
from eagleray.storage.disk import DiskFullError
from eagleray.storage.local import LocalStore
from eagleray.storage.store import FileEntry, NotFoundError, Store
from eagleray.testing.disk import small_disk
from eagleray.testing.s3_proxy import Fault, Request, StrictProxy

from .conftest import OpenS3

Files = dict[str, tuple[str, FileEntry]]


def is_data(request: Request) -> bool:
    return request.reads_data


def entry_of(data: bytes) -> FileEntry:
    return FileEntry(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


def put_dataset(store: Store, count: int = 20, size_bytes: int = 1000, seed: int = 0) -> Files:
    rng = random.Random(seed)
    files: Files = {}
    for number in range(count):
        data = rng.randbytes(size_bytes)
        store.put_bytes(f"d{seed}/{number}", data)
        files[f"train/{number % 3}/{number}.bin"] = (f"d{seed}/{number}", entry_of(data))
    return files


def assert_whole(folder: Path, files: Files) -> None:
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    assert set(found) == set(files)
    for name, (_, entry) in files.items():
        assert entry_of(found[name].read_bytes()) == entry


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[NodeCache]:
    made = NodeCache(tmp_path / "cache")
    yield made
    made.close()


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def kept(cache: NodeCache) -> list[Path]:
    return sorted(path for path in (cache.root / "files").rglob("*") if path.is_file())


def test_a_second_job_makes_no_get_of_data(
    open_s3: OpenS3, proxy: StrictProxy, cache: NodeCache, tmp_path: Path
) -> None:
    store = open_s3(proxy.access)
    files = put_dataset(store)
    store.put_bytes("weights.pt", b"weights")
    proxy.forget()
    cache.materialise(store, files, tmp_path / "one")
    first = cache.get(store, "weights.pt")
    assert proxy.count(is_data) == len(files) + 1
    proxy.forget()
    with_own_process = NodeCache(cache.root)
    with_own_process.materialise(store, files, tmp_path / "two")
    second = with_own_process.get(store, "weights.pt")
    assert proxy.count(is_data) == 0
    assert first.read_bytes() == second.read_bytes() == b"weights"
    assert_whole(tmp_path / "two", files)
    with_own_process.close()


def test_its_files_are_hard_links_that_cannot_be_written(store: LocalStore, cache: NodeCache, tmp_path: Path) -> None:
    files = put_dataset(store, count=2)
    cache.materialise(store, files, tmp_path / "tree")
    for name, (_, entry) in files.items():
        path = tmp_path / "tree" / name
        assert path.stat().st_mode & 0o222 == 0
        assert path.samefile(cache.root / "files" / entry.sha256[:2] / entry.sha256)


def test_weights_that_someone_placed_without_a_checksum_are_read_once_for_each_version(
    store: LocalStore, cache: NodeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put_bytes("w.pt", b"first")
    assert cache.get(store, "w.pt").read_bytes() == b"first"
    fetched: list[str] = []
    real = LocalStore.fetch_file

    def fetch_file(self: LocalStore, key: str, into: Path, *, sha256: str | None) -> None:
        fetched.append(key)
        real(self, key, into, sha256=sha256)

    monkeypatch.setattr(LocalStore, "fetch_file", fetch_file)
    assert cache.get(store, "w.pt").read_bytes() == b"first"
    assert fetched == []
    store.put_bytes("w.pt", b"replaced")
    assert cache.get(store, "w.pt").read_bytes() == b"replaced"
    assert fetched == ["w.pt"]


@pytest.mark.parametrize("same_size", [True, False])
def test_a_file_that_was_written_to_is_never_served(
    store: LocalStore, cache: NodeCache, tmp_path: Path, same_size: bool
) -> None:
    files = put_dataset(store, count=3)
    cache.materialise(store, files, tmp_path / "one")
    victim = next(iter(files))
    (tmp_path / "one" / victim).chmod(0o644)
    with (tmp_path / "one" / victim).open("r+b") as file:
        file.write(b"evil")
        if not same_size:
            file.truncate(5)
    cache.materialise(store, files, tmp_path / "two")
    assert_whole(tmp_path / "two", files)


def test_bytes_that_rotted_are_found_by_the_weekly_reading(store: LocalStore, tmp_path: Path) -> None:
    files = put_dataset(store, count=1)
    cache = NodeCache(tmp_path / "cache", reverify_after_s=0.0)
    cache.materialise(store, files, tmp_path / "one")
    (path,) = kept(cache)
    before = path.stat()
    path.chmod(0o644)
    path.write_bytes(b"x" * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    cache.materialise(store, files, tmp_path / "two")
    assert_whole(tmp_path / "two", files)


def test_files_from_before_the_machine_started_are_read_again(
    store: LocalStore, cache: NodeCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = put_dataset(store, count=1)
    cache.materialise(store, files, tmp_path / "one")
    (path,) = kept(cache)
    stamp = path.stat().st_mtime_ns
    path.chmod(0o644)
    path.write_bytes(bytes(path.stat().st_size))  # as a power cut leaves what was not yet on the disk
    os.utime(path, ns=(stamp, stamp))
    monkeypatch.setattr("eagleray.storage.cache._BEGAN_TO_RUN", time.time() + 5)
    cache.materialise(store, files, tmp_path / "two")
    assert_whole(tmp_path / "two", files)


def test_the_least_recently_used_goes_first_and_what_is_in_use_stays(store: LocalStore, tmp_path: Path) -> None:
    cache = NodeCache(tmp_path / "cache", max_bytes=3500)
    contents = [bytes([number]) * 1000 for number in range(5)]
    for number, data in enumerate(contents):
        store.put_bytes(f"f{number}", data)
    held = cache.get(store, "f0")
    other = NodeCache(cache.root, max_bytes=3500)
    for number in (1, 2):
        other.get(store, f"f{number}")
    other.close()
    for number, used_at_ns in ((0, 0), (2, 10**9)):
        sha256 = entry_of(contents[number]).sha256
        path = cache.root / "files" / sha256[:2] / sha256
        os.utime(path, ns=(used_at_ns, path.stat().st_mtime_ns))
    other.get(store, "f3")
    left = {path.name for path in kept(cache)}
    assert entry_of(contents[0]).sha256 in left
    assert entry_of(contents[2]).sha256 not in left
    assert cache.usage().size_bytes <= 3500
    assert held.read_bytes() == contents[0]
    other.close()
    cache.close()


def test_it_may_exceed_its_limit_only_by_what_is_in_use(store: LocalStore, tmp_path: Path) -> None:
    cache = NodeCache(tmp_path / "cache", max_bytes=2500)
    files = put_dataset(store, count=5)
    cache.materialise(store, files, tmp_path / "tree")
    assert_whole(tmp_path / "tree", files)
    assert cache.usage().in_use_bytes == 5000
    second = put_dataset(store, count=2, seed=1)
    (tmp_path / "tree").rename(tmp_path / "gone")
    shutil.rmtree(tmp_path / "gone")
    cache.materialise(store, second, tmp_path / "tree2")
    assert cache.usage().size_bytes <= 2500


def test_another_file_system_gets_verified_copies(store: LocalStore, cache: NodeCache, tmp_path: Path) -> None:
    shared_memory = Path("/dev/shm")
    if not shared_memory.is_dir() or shared_memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system")
    files = put_dataset(store, count=3)
    into = shared_memory / f"eagleray-test-{os.getpid()}"
    try:
        cache.materialise(store, files, into)
        assert_whole(into, files)
    finally:
        shutil.rmtree(into, ignore_errors=True)


def test_a_failed_making_leaves_no_folder_and_keeps_what_came(
    store: LocalStore, cache: NodeCache, tmp_path: Path
) -> None:
    files = put_dataset(store, count=3)
    files["bad"] = ("d0/0", entry_of(b"something else"))
    with pytest.raises(StorageError, match="damaged"):
        cache.materialise(store, files, tmp_path / "tree")
    assert not (tmp_path / "tree").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".tree")] == []
    assert len(kept(cache)) == 3
    with pytest.raises(NotFoundError):
        cache.get(store, "none")


def test_processes_that_want_the_same_at_once_fetch_it_once(
    open_s3: OpenS3, proxy: StrictProxy, tmp_path: Path
) -> None:
    store = open_s3(proxy.access)
    files = put_dataset(store, count=10)
    proxy.forget()
    caches = [NodeCache(tmp_path / "cache") for _ in range(6)]
    threads = [
        threading.Thread(target=cache.materialise, args=(store, files, tmp_path / f"tree{number}"))
        for number, cache in enumerate(caches)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(6):
        assert_whole(tmp_path / f"tree{number}", files)
    assert proxy.count(is_data) == len(files)


def test_bits_that_flip_on_the_way_never_enter(
    open_s3: OpenS3, proxy: StrictProxy, cache: NodeCache, tmp_path: Path
) -> None:
    store = open_s3(proxy.access)
    files = put_dataset(store, count=12)
    proxy.inject(Fault.FLIP_DOWN, is_data, probability=0.4)
    cache.materialise(store, files, tmp_path / "tree")
    proxy.heal()
    assert_whole(tmp_path / "tree", files)
    for path in kept(cache):
        assert entry_of(path.read_bytes()).sha256 == path.name


KILLED = """
import sys
from pathlib import Path
from eagleray.storage.cache import NodeCache
from eagleray.storage.local import LocalStore
from eagleray.storage.store import file_entry
root = Path(sys.argv[1])
store = LocalStore(root / "store")
files = {info.key: (info.key, file_entry(root / "store" / info.key)) for info in store.list("")}
print("up", flush=True)
number = 0
while True:
    number += 1
    cache = NodeCache(root / "cache", max_bytes=40_000)
    cache.materialise(store, files, root / f"tree-{number}-{sys.argv[2]}")
    cache.get(store, next(iter(files)))
    cache.prune(0)
    cache.close()
"""


@pytest.mark.fault
def test_kills_at_any_moment_leave_only_right_bytes_and_no_litter(store: LocalStore, tmp_path: Path) -> None:
    files = put_dataset(store, count=30, size_bytes=3000)
    rng = random.Random(0)
    for round_number in range(8):
        killed = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path), str(round_number)], stdout=subprocess.PIPE
        )
        assert killed.stdout is not None
        killed.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.15))
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        for path in (tmp_path / "cache" / "files").rglob("*"):
            if path.is_file():
                assert entry_of(path.read_bytes()).sha256 == path.name
    cache = NodeCache(tmp_path / "cache")
    cache.prune(0)
    cache.materialise(store, files, tmp_path / "tree")
    cache.get(store, "d0/1")
    assert_whole(tmp_path / "tree", files)
    assert list((tmp_path / "cache" / "tmp").iterdir()) == []
    assert len(list((tmp_path / "cache" / "leases").iterdir())) == 2, "this process's lease and its lock"
    cache.close()
    assert list((tmp_path / "cache" / "leases").iterdir()) == []


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small", "2m") as folder:
        yield folder


@pytest.mark.fault
def test_a_full_disk_is_refused_before_anything_is_fetched_and_heals(
    store: LocalStore, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eagleray.storage.cache.RESERVE_BYTES", 0)
    cache = NodeCache(disk / "cache", max_bytes=10**9)
    old = put_dataset(store, count=10, size_bytes=100_000, seed=1)
    cache.materialise(store, old, disk / "old")
    shutil.rmtree(disk / "old")
    new = put_dataset(store, count=15, size_bytes=100_000, seed=2)
    cache.materialise(store, new, disk / "new")
    assert_whole(disk / "new", new)
    with pytest.raises(DiskFullError, match=r"no room for .* bytes") as caught:
        cache.materialise(store, old, disk / "old")
    assert caught.value.http_status == 507
    shutil.rmtree(disk / "new")
    cache.materialise(store, old, disk / "old")
    assert_whole(disk / "old", old)
