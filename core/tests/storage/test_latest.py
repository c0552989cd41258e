"""What is rewritten often gets to the store newest first, and nobody waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from eagleray.contract.errors import StorageError
from eagleray.storage.latest import LatestWriter
from eagleray.storage.local import LocalStore


class PacedStore(LocalStore):
    """A folder with a bucket's limit, that can be away."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.away = False
        self.written: list[tuple[str, bytes]] = []
        self.writing = threading.Event()

    @property
    def write_interval_s(self) -> float:
        return 0.05

    def put_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        self.writing.set()
        time.sleep(self.write_interval_s)
        if self.away:
            raise StorageError("Nothing answers.")
        self.written.append((key, data))
        super().put_bytes(key, data, if_absent=if_absent)


def refuse(error: Exception) -> None:
    raise AssertionError(error)


@pytest.fixture
def store(tmp_path: Path) -> PacedStore:
    return PacedStore(tmp_path)


def ignore(error: Exception) -> None:
    return


def test_no_caller_waits_and_the_newest_gets_there(store: PacedStore) -> None:
    writer = LatestWriter(store, ignore)
    started = time.monotonic()
    for number in range(100):
        writer.put("record", str(number).encode())
        writer.put("metrics", str(-number).encode())
    assert time.monotonic() - started < 0.5
    assert writer.flush(5) == {}
    assert (store.get_bytes("record"), store.get_bytes("metrics")) == (b"99", b"-99")
    assert len(store.written) < 40


def test_an_outage_is_said_once_and_made_up_for(store: PacedStore) -> None:
    said: list[Exception] = []
    writer = LatestWriter(store, said.append)
    store.away = True
    for number in range(5):
        writer.put("record", str(number).encode())
        time.sleep(0.06)
    assert writer.flush(0.2) == {"record": b"4"}
    assert [str(error) for error in said] == ["Nothing answers."]
    store.away = False
    assert writer.flush(10) == {}
    assert store.get_bytes("record") == b"4"


def test_one_key_that_fails_does_not_hold_up_another(store: PacedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = LatestWriter(store, ignore)
    writer.put("../bad", b"x")
    writer.put("good", b"x")
    deadline = time.monotonic() + 10
    while not store.exists("good"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_store_without_a_limit_has_it_when_put_returns(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    LatestWriter(store, refuse).put("record", b"x")
    assert store.get_bytes("record") == b"x"


@pytest.mark.parametrize("make", [LocalStore, PacedStore])
def test_what_is_not_allowed_any_more_is_dropped(tmp_path: Path, make: Callable[[Path], LocalStore]) -> None:
    store = make(tmp_path)
    writer = LatestWriter(store, refuse, lambda: False)
    writer.put("record", b"x")
    assert writer.flush(5) == {}
    assert not store.exists("record")


def test_what_comes_in_one_moment_is_written_once(store: PacedStore) -> None:
    writer = LatestWriter(store, refuse)
    for number in range(3):
        writer.put("record", str(number).encode())
        time.sleep(0.02)
    writer.flush(5)
    assert store.written == [("record", b"2")]


def test_what_comes_while_older_bytes_are_written_is_not_lost(store: PacedStore) -> None:
    writer = LatestWriter(store, refuse)
    writer.put("record", b"old")
    assert store.writing.wait(5)
    writer.put("record", b"new")
    assert writer.flush(5) == {}
    assert store.get_bytes("record") == b"new"
