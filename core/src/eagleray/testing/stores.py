"""What every store must do. Another store inherits `StoreConformance` and gives its own `store`.

class TestMyStore(StoreConformance):
    @pytest.fixture
    def store(self) -> Store:
        return MyStore(...)  # empty, and new for every test
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from eagleray.contract.errors import StorageError
from eagleray.storage import layout
from eagleray.storage.opening import open_store, store_access
from eagleray.storage.store import TEMPORARY_PREFIX, AlreadyExistsError, FileEntry, NotFoundError, Store

BAD_KEYS = [
    "",
    "/etc/passwd",
    "../x",
    "a/../../x",
    "a/..",
    "a/./b",
    "a//b",
    "a/",
    "a\\b",
    "C:\\x",
    "a\0b",
    "a\nb",
    "a\x7f",
    "x" * 256,
    "/".join(["abcdefg"] * 200),
    "\udc80",
    f"a/{TEMPORARY_PREFIX}1",
]


EMPTY = FileEntry(sha256=hashlib.sha256(b"").hexdigest(), size_bytes=0)


def entry_of(data: bytes) -> FileEntry:
    return FileEntry(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


def winners(put: Callable[[int], object], racers: int = 16) -> list[int]:
    """Those of the `racers`, by number, whose `put` succeeds when all begin at once; AlreadyExistsError is a defeat."""
    barrier, won = threading.Barrier(racers), []

    def race(number: int) -> None:
        barrier.wait()
        try:
            put(number)
        except AlreadyExistsError:
            return
        won.append(number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(racers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return won


class StoreConformance:
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        raise NotImplementedError

    def test_bytes_come_back_as_they_were_put(self, store: Store) -> None:
        store.put_bytes("a/b.bin", b"\0one\r\n")
        assert store.get_bytes("a/b.bin") == b"\0one\r\n"

    def test_a_put_replaces_what_was_there(self, store: Store) -> None:
        store.put_bytes("a", b"a much longer first one")
        store.put_bytes("a", b"two")
        assert store.get_bytes("a") == b"two"

    def test_a_file_put_returns_the_identity_of_its_bytes(self, store: Store, tmp_path: Path) -> None:
        data = os.urandom(3_000_001)
        (tmp_path / "big").write_bytes(data)
        entry = store.put_file("f/big", tmp_path / "big")
        assert entry.sha256 == hashlib.sha256(data).hexdigest()
        assert entry.size_bytes == len(data)
        assert store.digest("f/big") == entry

    def test_putting_a_file_that_is_not_there_names_it(self, store: Store, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match=r"none\.pt"):
            store.put_file("a", tmp_path / "none.pt")
        assert not store.exists("a")

    def test_a_conditional_put_refuses_a_taken_key_and_keeps_its_bytes(self, store: Store, tmp_path: Path) -> None:
        store.put_bytes("a", b"first", if_absent=True)
        (tmp_path / "second").write_bytes(b"second")
        with pytest.raises(AlreadyExistsError):
            store.put_bytes("a", b"second", if_absent=True)
        with pytest.raises(AlreadyExistsError):
            store.put_file("a", tmp_path / "second", if_absent=True)
        assert store.get_bytes("a") == b"first"

    def test_of_racing_conditional_puts_exactly_one_wins(self, store: Store) -> None:
        won = winners(lambda number: store.put_bytes("race/key", str(number).encode() * 1000, if_absent=True))
        assert len(won) == 1
        assert store.get_bytes("race/key") == str(won[0]).encode() * 1000

    def test_what_is_not_there_is_said_to_be_not_there(self, store: Store, tmp_path: Path) -> None:
        store.put_bytes("folder/file", b"")
        for key in ("none", "folder", "folder/none", "folder/file/below"):
            assert not store.exists(key)
            with pytest.raises(NotFoundError, match=key):
                store.get_bytes(key)
            with pytest.raises(NotFoundError):
                store.digest(key)
            with pytest.raises(NotFoundError):
                store.fetch_file(key, tmp_path / "into", sha256=None)
            with pytest.raises(NotFoundError):
                store.copy(key, "copy")
            store.delete(key)
        assert not (tmp_path / "into").exists()
        assert store.exists("folder/file")

    def test_a_fetched_file_is_verified(self, store: Store, tmp_path: Path) -> None:
        store.put_bytes("a", b"bytes")
        store.fetch_file("a", tmp_path / "new" / "into", sha256=hashlib.sha256(b"bytes").hexdigest())
        assert (tmp_path / "new" / "into").read_bytes() == b"bytes"

    def test_bytes_of_another_sha256_never_arrive(self, store: Store, tmp_path: Path) -> None:
        store.put_bytes("a", b"bytes")
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "into").write_bytes(b"before")
        with pytest.raises(StorageError, match="damaged"):
            store.fetch_file("a", tmp_path / "out" / "into", sha256="0" * 64)
        assert (tmp_path / "out" / "into").read_bytes() == b"before"
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["into"]

    def test_a_copy_is_independent_of_its_source(self, store: Store) -> None:
        store.put_bytes("a/source", b"one")
        store.copy("a/source", "b/copy")
        store.put_bytes("a/source", b"two")
        assert store.get_bytes("b/copy") == b"one"

    def test_a_listing_is_sorted_by_whole_keys_with_sizes(self, store: Store) -> None:
        keys = ["p/a/z", "p/a-b", "p/a.x/y", "p/b", "p/ä", "pp/c"]
        for key in keys:
            store.put_bytes(key, key.encode())
        assert [info.key for info in store.list("p")] == sorted(keys[:5])
        assert [info.key for info in store.list("")] == sorted(keys)
        assert all(info.size_bytes == len(info.key.encode()) for info in store.list(""))

    def test_a_prefix_is_a_whole_folder(self, store: Store) -> None:
        store.put_bytes("job_1/a", b"")
        store.put_bytes("job_10/a", b"")
        assert [info.key for info in store.list("job_1")] == ["job_1/a"]
        assert list(store.list("none")) == []

    def test_folders_are_those_that_hold_something(self, store: Store) -> None:
        for key in ("p/a/x", "p/b/c/x", "p/file", "p/gone/x"):
            store.put_bytes(key, b"")
        store.delete("p/gone/x")
        assert list(store.list_folders("p")) == ["a", "b"]
        assert list(store.list_folders("")) == ["p"]
        assert list(store.list_folders("none")) == []

    def test_deleting_a_prefix_spares_its_neighbours(self, store: Store) -> None:
        for key in ("p/job_1/a", "p/job_1/b/c", "p/job_10/a", "q"):
            store.put_bytes(key, b"")
        store.delete_prefix("p/job_1")
        store.delete_prefix("p/job_1")
        assert [info.key for info in store.list("")] == ["p/job_10/a", "q"]

    def test_everything_is_never_deleted_at_once(self, store: Store) -> None:
        store.put_bytes("a", b"")
        with pytest.raises(StorageError):
            store.delete_prefix("")
        assert store.exists("a")

    def test_writers_and_deleters_of_one_folder_do_not_hurt_each_other(self, store: Store) -> None:
        faults: list[Exception] = []

        def churn(number: int) -> None:
            try:
                for _ in range(30):
                    store.put_bytes(f"deep/er/{number}", b"x")
                    store.delete(f"deep/er/{number}")
            except Exception as error:
                faults.append(error)

        threads = [threading.Thread(target=churn, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert faults == []
        assert list(store.list("")) == []

    @pytest.mark.parametrize("key", BAD_KEYS, ids=range(len(BAD_KEYS)))
    def test_a_bad_key_is_refused_by_every_method(self, store: Store, tmp_path: Path, key: str) -> None:
        (tmp_path / "file").write_bytes(b"x")
        store.put_bytes("good", b"x")
        for attempt in (
            lambda: store.put_bytes(key, b"x"),
            lambda: store.put_file(key, tmp_path / "file"),
            lambda: store.get_bytes(key),
            lambda: store.digest(key),
            lambda: store.identify(key),
            lambda: store.fetch_many({"into": (key, EMPTY)}, tmp_path),
            lambda: store.fetch_many({key: ("good", EMPTY)}, tmp_path),
            lambda: store.presign(key, 60) or store.get_bytes(key),
            lambda: store.fetch_file(key, tmp_path / "into", sha256=None),
            lambda: store.copy("good", key),
            lambda: store.copy(key, "other"),
            lambda: store.exists(key),
            lambda: store.delete(key),
            lambda: store.delete_prefix(key),
            lambda: store.local_path(key),
            lambda: (key and list(store.list(key))) or store.get_bytes(key),
        ):
            with pytest.raises(StorageError, match="is not a storage key") as caught:
                attempt()
            assert not isinstance(caught.value, NotFoundError)
        assert [info.key for info in store.list("")] == ["good"]

    def test_its_location_opens_it_again(self, store: Store) -> None:
        store.put_bytes("a", b"x")
        assert open_store(store.location, store_access(store)).get_bytes("a") == b"x"

    def test_what_an_object_is_is_known_without_reading_it(self, store: Store) -> None:
        store.put_bytes("a", b"bytes")
        first = store.identify("a")
        assert first.size_bytes == 5
        assert first.sha256 in (None, hashlib.sha256(b"bytes").hexdigest())
        assert store.identify("a").version == first.version
        store.put_bytes("a", b"other")
        assert store.identify("a").version != first.version
        for key in ("none", "a/below"):
            with pytest.raises(NotFoundError):
                store.identify(key)

    def test_a_folder_is_no_object(self, store: Store) -> None:
        store.put_bytes("folder/file", b"")
        with pytest.raises(NotFoundError):
            store.identify("folder")

    def test_many_files_come_at_once_each_verified(self, store: Store, tmp_path: Path) -> None:
        contents = {f"d/{number % 7}/{number}.bin": os.urandom(number * 131) for number in range(60)}
        for name, data in contents.items():
            store.put_bytes(f"from/{name}", data)
        store.fetch_many({name: (f"from/{name}", entry_of(data)) for name, data in contents.items()}, tmp_path / "into")
        found = {
            path.relative_to(tmp_path / "into").as_posix(): path.read_bytes()
            for path in (tmp_path / "into").rglob("*")
            if path.is_file()
        }
        assert found == contents

    def test_one_bad_file_of_many_is_named_and_never_arrives(self, store: Store, tmp_path: Path) -> None:
        store.put_bytes("good", b"good")
        store.put_bytes("bad", b"bad!")
        with pytest.raises(StorageError, match=r"'bad' in .* is damaged"):
            store.fetch_many({"x": ("good", entry_of(b"good")), "y": ("bad", entry_of(b"BAD!"))}, tmp_path)
        assert not (tmp_path / "y").exists()
        with pytest.raises(NotFoundError, match="none"):
            store.fetch_many({"z": ("none", EMPTY)}, tmp_path)

    def test_a_large_file_comes_back_as_it_was_put(self, store: Store, tmp_path: Path) -> None:
        data = random.Random(1).randbytes(21 * (1 << 20) + 17)
        (tmp_path / "big").write_bytes(data)
        entry = store.put_file("big/file.bin", tmp_path / "big")
        assert entry == entry_of(data)
        store.fetch_file("big/file.bin", tmp_path / "one", sha256=entry.sha256)
        assert (tmp_path / "one").read_bytes() == data
        store.copy("big/file.bin", "big/copy.bin")
        store.fetch_many({"two": ("big/copy.bin", entry)}, tmp_path)
        assert (tmp_path / "two").read_bytes() == data

    def test_a_large_file_is_put_conditionally_too(self, store: Store, tmp_path: Path) -> None:
        data = random.Random(2).randbytes(11 * (1 << 20))
        (tmp_path / "big").write_bytes(data)
        store.put_file("big", tmp_path / "big", if_absent=True)
        (tmp_path / "other").write_bytes(data[::-1])
        with pytest.raises(AlreadyExistsError):
            store.put_file("big", tmp_path / "other", if_absent=True)
        assert store.digest("big") == entry_of(data)

    @pytest.mark.parametrize(
        "name", ["ü ö.png", "a+b", "a%2Fb", "%", "a b", "'\"<>&?#*", "~tilde", "=;:@,$!()[]", "日本"]
    )
    def test_any_name_is_kept_as_it_is(self, store: Store, tmp_path: Path, name: str) -> None:
        key = f"names/{name}"
        store.put_bytes(key, b"x")
        store.copy(key, f"copies/{name}")
        assert [info.key for info in store.list("names")] == [key]
        assert store.get_bytes(f"copies/{name}") == b"x"
        assert store.exists(key)
        store.fetch_many({"into": (key, entry_of(b"x"))}, tmp_path)
        store.delete(key)
        assert not store.exists(key)

    def test_quoted_names_of_any_kind_are_stored_and_listed(self, store: Store) -> None:
        rng = random.Random(3)
        for _ in range(15):
            name = "".join(chr(rng.choice((rng.randrange(32, 127), rng.randrange(160, 0xD7FF)))) for _ in range(12))
            key = layout.weights_key("x", name)
            store.put_bytes(key, name.encode())
            assert store.get_bytes(key) == name.encode()
            assert key in [info.key for info in store.list("pretrained_weights/x")]

    def test_a_presigned_address_is_had_or_there_is_none(self, store: Store) -> None:
        store.put_bytes("a b", b"x")
        address = store.presign("a b", 60)
        assert address is None or address.startswith("http")

    def test_sweeping_leaves_what_is_whole(self, store: Store) -> None:
        store.put_bytes("a/b", b"x")
        assert store.sweep_unfinished(0) == 0
        assert store.get_bytes("a/b") == b"x"

    def test_a_store_that_is_there_is_said_to_be_there(self, store: Store) -> None:
        store.check()

    def test_an_objects_age_is_known(self, store: Store) -> None:
        started = time.time()
        store.put_bytes("a", b"x")
        (info,) = store.list("")
        assert started - 5 < info.modified_at < time.time() + 5
