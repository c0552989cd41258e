"""A bucket behind bad lines: overload, bits that flip, answers that are lost (F13, F15–F17)."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from eagleray.contract.errors import StorageError
from eagleray.storage.s3.options import MIB, S3Options
from eagleray.storage.s3.store import S3Store
from eagleray.storage.store import AlreadyExistsError, StoreUnreachableError
from eagleray.testing.s3_proxy import Fault, StrictProxy, strict_proxy
from eagleray.testing.s3_server import SeaweedServer
from eagleray.testing.stores import entry_of, winners

from .conftest import FAST, OpenS3, is_completion, is_data, is_part, is_put

# F13: overload


def test_f13_with_forty_percent_slow_down_everything_succeeds_and_retries_are_counted(
    store: S3Store, proxy: StrictProxy, tmp_path: Path, big: tuple[Path, bytes]
) -> None:
    proxy.inject(Fault.SLOW_DOWN, probability=0.4)
    for number in range(15):
        store.put_bytes(f"k{number}", str(number).encode())
    assert [store.get_bytes(f"k{number}") for number in range(15)] == [str(n).encode() for n in range(15)]
    store.put_file("big", big[0])
    store.fetch_many({"out": ("big", entry_of(big[1]))}, tmp_path)
    assert (tmp_path / "out").read_bytes() == big[1]
    assert len(list(store.list(""))) == 16
    assert store.bucket.retries > 10


def test_f13_clients_that_were_refused_together_do_not_come_back_together(
    store: S3Store, monkeypatch: pytest.MonkeyPatch, proxy: StrictProxy
) -> None:
    waits: list[float] = []
    here = threading.get_ident()
    # The proxy's own threads sleep too.
    monkeypatch.setattr(
        "eagleray.storage.s3.bucket.time.sleep", lambda s: waits.append(s) if threading.get_ident() == here else None
    )
    proxy.inject(Fault.FAIL)
    with pytest.raises(StoreUnreachableError, match="refuses for now"):
        store.get_bytes("a")
    tries = [wait for wait in waits if wait]
    assert len(tries) == FAST.attempts - 1
    assert len(set(tries)) == len(tries)
    assert max(tries) <= FAST.cap_s


def test_f13_a_key_is_written_at_most_once_a_second(s3_server: SeaweedServer, open_s3: OpenS3) -> None:
    with strict_proxy(s3_server, write_interval_s=1.0) as proxy:
        store = open_s3(proxy.access, S3Options())
        started = time.monotonic()
        for number in range(3):
            store.put_bytes("same", str(number).encode())
            store.put_bytes(f"other{number}", b"")
        assert 2.0 < time.monotonic() - started < 6.0
        assert not [request for request in proxy.requests if request.status == 429]
        store.put_bytes("from", b"x")
        store.copy("from", "same")
        assert not [request for request in proxy.requests if request.status == 429]


def test_f13_the_429_of_another_process_is_waited_out(open_s3: OpenS3, proxy: StrictProxy) -> None:
    stores = [open_s3(proxy.access) for _ in range(4)]
    threads = [threading.Thread(target=one.put_bytes, args=("same", b"x")) for one in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert proxy.count(lambda request: request.status == 429) > 0
    assert proxy.count(lambda request: request.writes_object and request.status == 200) == 4


# F15, F16: bits that flip, lines that break


def test_f15_a_bit_that_flips_on_the_way_up_is_refused_and_sent_again(
    store: S3Store, proxy: StrictProxy, big: tuple[Path, bytes]
) -> None:
    proxy.inject(Fault.FLIP_UP, is_put, times=2)
    store.put_bytes("small", b"small bytes")
    proxy.inject(Fault.FLIP_UP, is_part, times=2)
    store.put_file("big", big[0])
    proxy.heal()
    assert store.get_bytes("small") == b"small bytes"
    assert store.digest("big") == entry_of(big[1])


def test_f15_a_line_that_always_flips_stores_nothing(store: S3Store, proxy: StrictProxy) -> None:
    proxy.inject(Fault.FLIP_UP, is_put)
    with pytest.raises(StorageError):
        store.put_bytes("a", b"bytes")
    proxy.heal()
    assert not store.exists("a")


@pytest.mark.parametrize("fault", [Fault.FLIP_DOWN, Fault.TRUNCATE, Fault.LOST_ACK, Fault.FAIL])
def test_f16_a_bad_answer_is_read_again(
    store: S3Store, proxy: StrictProxy, tmp_path: Path, big: tuple[Path, bytes], fault: Fault
) -> None:
    store.put_bytes("small", b"small bytes")
    store.put_file("big", big[0])
    proxy.inject(fault, is_data, times=2)
    assert store.get_bytes("small") == b"small bytes"
    proxy.inject(fault, is_data, times=2)
    store.fetch_file("big", tmp_path / "one", sha256=entry_of(big[1]).sha256)
    proxy.inject(fault, is_data, times=3)
    store.fetch_many({"two": ("big", entry_of(big[1])), "s": ("small", entry_of(b"small bytes"))}, tmp_path)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes() == big[1]


def test_f16_a_truncated_body_goes_on_by_range_and_is_not_fetched_twice(
    store: S3Store, proxy: StrictProxy, tmp_path: Path, big: tuple[Path, bytes]
) -> None:
    store.put_file("big", big[0])
    proxy.forget()
    proxy.inject(Fault.TRUNCATE, is_data, times=1)
    store.fetch_file("big", tmp_path / "out", sha256=None)
    ranges = [request.headers.get("range") for request in proxy.requests if request.reads_data]
    assert ranges[0] is None
    assert ranges[1] is not None
    assert int(ranges[1].removeprefix("bytes=").rstrip("-")) > 10 * MIB - 2 * MIB


def test_f16_a_stalled_body_is_given_up_after_the_read_timeout(
    s3_server: SeaweedServer, open_s3: OpenS3, proxy: StrictProxy
) -> None:
    store = open_s3(proxy.access, replace(FAST, read_timeout_s=1.0))
    data = random.Random(1).randbytes(3 * MIB)
    store.put_bytes("a", data)
    proxy.inject(Fault.STALL, is_data, times=1)
    started = time.monotonic()
    assert store.get_bytes("a") == data
    assert 0.9 < time.monotonic() - started < 8


def test_f16_bytes_that_stay_wrong_are_a_sentence_after_three_tries(
    store: S3Store, proxy: StrictProxy, tmp_path: Path
) -> None:
    store.put_bytes("a", b"bytes")
    proxy.forget()
    proxy.inject(Fault.FLIP_DOWN, is_data)
    with pytest.raises(StorageError, match=r"'a' in s3://.* is damaged"):
        store.get_bytes("a")
    assert proxy.count(is_data) == 3
    with pytest.raises(StorageError, match="is damaged"):
        store.fetch_file("a", tmp_path / "a", sha256=entry_of(b"bytes").sha256)
    assert list(tmp_path.iterdir()) == []


# F17: lost acknowledgements


def test_f17_a_conditional_put_whose_answer_was_lost_is_a_success(store: S3Store, proxy: StrictProxy) -> None:
    proxy.inject(Fault.LOST_ACK, is_put, times=1)
    store.put_bytes("manifest", b"mine", if_absent=True)
    assert proxy.count(lambda request: request.status == 412) == 1
    proxy.heal()
    with pytest.raises(AlreadyExistsError):
        store.put_bytes("manifest", b"mine", if_absent=True)


def test_f17_another_writers_same_bytes_are_no_success_of_ours(open_s3: OpenS3, proxy: StrictProxy) -> None:
    open_s3(proxy.access).put_bytes("a", b"same", if_absent=True)
    with pytest.raises(AlreadyExistsError):
        open_s3(proxy.access).put_bytes("a", b"same", if_absent=True)


@pytest.mark.parametrize("if_absent", [True, False])
def test_f17_a_completed_upload_whose_answer_was_lost_is_a_success(
    store: S3Store, proxy: StrictProxy, big: tuple[Path, bytes], if_absent: bool
) -> None:
    proxy.inject(Fault.LOST_ACK, is_completion, times=1)
    store.put_file("big", big[0], if_absent=if_absent)
    assert store.digest("big") == entry_of(big[1])


def test_of_racing_processes_exactly_one_makes_the_key(open_s3: OpenS3) -> None:
    stores = [open_s3() for _ in range(16)]
    won = winners(lambda number: stores[number].put_bytes("race", b"the same bytes", if_absent=True))
    assert len(won) == 1
