"""Only what a bucket can get wrong: lost answers, broken lines, overload, dying servers, refusals, and R2's rules."""

from __future__ import annotations

import hashlib
import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from eagleray.contract.errors import StorageError
from eagleray.settings import S3Access, load_s3_access
from eagleray.storage.checkpoints import Checkpoints
from eagleray.storage.disk import DiskFullError
from eagleray.storage.opening import open_store, store_access
from eagleray.storage.s3.bucket import Bucket
from eagleray.storage.s3.location import S3Location, parse_location
from eagleray.storage.s3.options import GIB, MIB, S3Options
from eagleray.storage.s3.store import S3Store
from eagleray.storage.s3.upload import base64_of
from eagleray.storage.store import AlreadyExistsError, FileEntry, NotFoundError, StoreUnreachableError
from eagleray.storage.sweep import sweep, sweep_daily
from eagleray.testing.disk import small_disk
from eagleray.testing.s3_proxy import Fault, Request, StrictProxy, strict_proxy
from eagleray.testing.s3_server import READER_KEY, READER_SECRET, SECRET_KEY, SeaweedServer, seaweed

from .conftest import BUCKET, FAST, OpenS3


def entry_of(data: bytes) -> FileEntry:
    return FileEntry(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


def is_put(request: Request) -> bool:
    return request.method == "PUT"


def is_data(request: Request) -> bool:
    return request.reads_data


def is_part(request: Request) -> bool:
    return request.method == "PUT" and "uploadId" in request.query


def is_completion(request: Request) -> bool:
    return request.method == "POST" and "uploadId" in request.query


@pytest.fixture
def store(open_s3: OpenS3, proxy: StrictProxy) -> S3Store:
    return open_s3(proxy.access)


@pytest.fixture
def big(tmp_path: Path) -> tuple[Path, bytes]:
    """Five parts, the last a short one."""
    data = random.Random(7).randbytes(21 * MIB)
    (tmp_path / "big.bin").write_bytes(data)
    return tmp_path / "big.bin", data


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
    barrier, won = threading.Barrier(16), []

    def put(number: int) -> None:
        barrier.wait()
        try:
            stores[number].put_bytes("race", b"the same bytes", if_absent=True)
            won.append(number)
        except AlreadyExistsError:
            return

    threads = [threading.Thread(target=put, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


# F19: uploads in parts


def test_f19_a_second_try_sends_only_the_parts_that_are_missing(
    store: S3Store, open_s3: OpenS3, proxy: StrictProxy, big: tuple[Path, bytes]
) -> None:
    proxy.inject(Fault.FAIL, lambda request: is_part(request) and request.query["partNumber"] == "4")
    with pytest.raises(StoreUnreachableError):
        store.put_file("big", big[0])
    proxy.heal()
    proxy.forget()
    open_s3(proxy.access).put_file("big", big[0])  # another process, by the note on the disk
    assert {request.query["partNumber"] for request in proxy.requests if is_part(request)} <= {"4", "5"}
    assert store.digest("big") == entry_of(big[1])
    assert list(Path(big[0].parent / "uploads").iterdir()) == []


def test_f19_an_upload_of_other_bytes_is_not_gone_on_with(
    store: S3Store, proxy: StrictProxy, big: tuple[Path, bytes]
) -> None:
    proxy.inject(Fault.FAIL, lambda request: is_part(request) and request.query["partNumber"] == "5")
    with pytest.raises(StoreUnreachableError):
        store.put_file("big", big[0])
    proxy.heal()
    other = bytes(MIB) + big[1][MIB:]
    big[0].write_bytes(other)
    store.put_file("big", big[0])
    assert store.digest("big") == entry_of(other)
    assert store.identify("big").sha256 == entry_of(other).sha256


@pytest.mark.parametrize("forget", ["abort", "garbage"])
def test_f19_an_upload_that_is_gone_starts_anew(
    store: S3Store, proxy: StrictProxy, big: tuple[Path, bytes], forget: str
) -> None:
    proxy.inject(Fault.FAIL, lambda request: is_part(request) and request.query["partNumber"] == "3")
    with pytest.raises(StoreUnreachableError):
        store.put_file("big", big[0])
    proxy.heal()
    if forget == "abort":
        assert store.sweep_unfinished(-60) == 1
    else:
        (note,) = (big[0].parent / "uploads").glob("*.json")
        note.write_text("{")
    store.put_file("big", big[0])
    assert store.digest("big") == entry_of(big[1])


UPLOAD = """
import sys
from pathlib import Path
from eagleray.settings import load_s3_access
from eagleray.storage.s3.options import MIB, S3Options
from eagleray.storage.s3.store import S3Store
from eagleray.storage.s3.upload import base64_of
options = S3Options(single_put_max_bytes=8 * MIB, part_bytes=5 * MIB, upload_threads=1, unreachable_attempts=99)
store = S3Store.open(sys.argv[1], load_s3_access(), options, state=Path(sys.argv[3]))
print("up", flush=True)
store.put_file("big", Path(sys.argv[2]))
"""


@pytest.mark.fault
def test_f2_a_writer_killed_between_parts_is_gone_on_with(
    store: S3Store, open_s3: OpenS3, proxy: StrictProxy, big: tuple[Path, bytes], tmp_path: Path
) -> None:
    environ = {**os.environ, **proxy.environ, "EAGLERAY_FAILPOINTS": "s3.after_part:kill"}
    command = [sys.executable, "-c", UPLOAD, store.location, str(big[0]), str(tmp_path / "uploads")]
    killed = subprocess.run(command, env=environ, stdout=subprocess.DEVNULL, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not store.exists("big")
    proxy.forget()
    subprocess.run(command, env={**environ, "EAGLERAY_FAILPOINTS": ""}, stdout=subprocess.DEVNULL, check=True)
    assert "1" not in {request.query["partNumber"] for request in proxy.requests if is_part(request)}
    assert store.digest("big") == entry_of(big[1])


@pytest.mark.fault
def test_f19_a_server_killed_in_the_middle_of_an_upload_gets_the_rest(tmp_path: Path) -> None:
    (tmp_path / "s3").mkdir()
    data = random.Random(3).randbytes(60 * MIB)
    (tmp_path / "big").write_bytes(data)
    with seaweed(tmp_path / "s3") as server, strict_proxy(server) as proxy:
        server.make_bucket(BUCKET)
        environ = {**os.environ, **proxy.environ}
        command = [sys.executable, "-c", UPLOAD, f"s3://{BUCKET}/x", str(tmp_path / "big"), str(tmp_path / "uploads")]
        with subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL) as upload:
            while proxy.count(lambda request: is_part(request) and request.status == 200) < 3:
                time.sleep(0.01)
            server.kill()
            before = {
                request.query["partNumber"] for request in proxy.requests if request.status == 200 and is_part(request)
            }
            proxy.forget()
            server.start()
            assert upload.wait(120) == 0
        sent = [request.query["partNumber"] for request in proxy.requests if is_part(request) and request.status == 200]
        assert not before & set(sent), "what was acknowledged before the kill is still there"
        store = S3Store.open(f"s3://{BUCKET}/x", server.access, FAST)
        assert store.digest("big") == entry_of(data)
        store.close()


def test_a_node_ends_orphaned_uploads_once_a_day(open_s3: OpenS3, proxy: StrictProxy, tmp_path: Path) -> None:
    store = open_s3(proxy.access)
    for _ in range(2):
        sweep_daily(store, tmp_path / "home" / "swept")
    assert proxy.count(lambda request: "uploads" in request.query) == 1
    os.utime(tmp_path / "home" / "swept", (0, 0))
    sweep_daily(store, tmp_path / "home" / "swept")
    assert proxy.count(lambda request: "uploads" in request.query) == 2


def test_orphaned_uploads_and_prefixes_go_once_they_are_old(
    store: S3Store, proxy: StrictProxy, big: tuple[Path, bytes]
) -> None:
    proxy.inject(Fault.FAIL, lambda request: is_part(request) and request.query["partNumber"] == "5")
    with pytest.raises(StoreUnreachableError):
        store.put_file("checkpoints/test-jobs/job_1/attempts/1/epoch-00003/model.pt", big[0])
    proxy.heal()
    store.put_bytes("checkpoints/test-jobs/job_1/attempts/1/epoch-00002/model.pt", b"orphan")
    store.put_bytes("checkpoints/projects/p/jobs/2/attempts/1/epoch-00001/model.pt", b"whole")
    store.put_bytes("checkpoints/projects/p/jobs/2/attempts/1/epoch-00001/manifest.json", b"{}")
    young = sweep(store, 3600)
    assert (young.unfinished, young.folders) == (0, [])
    assert sweep(store, -60, dry_run=True).folders == ["checkpoints/test-jobs/job_1/attempts/1/epoch-00002"]
    old = sweep(store, -60)
    assert (old.unfinished, old.folders) == (1, ["checkpoints/test-jobs/job_1/attempts/1/epoch-00002"])
    assert [info.key for info in store.list("")] == [
        "checkpoints/projects/p/jobs/2/attempts/1/epoch-00001/manifest.json",
        "checkpoints/projects/p/jobs/2/attempts/1/epoch-00001/model.pt",
    ]


COMMIT = """
import os, sys
from pathlib import Path
from eagleray.storage.checkpoints import Checkpoints
from eagleray.storage.opening import open_store
location, root, point = sys.argv[1:]
checkpoints = Checkpoints(open_store(location), "job")
folder = Path(root) / "save"
folder.mkdir()
for epoch in (1, 2):
    for name in ("model.pt", "optimizer.bin"):
        (folder / name).write_text(f"{name} {epoch}" * 1000)
    if epoch == 2:
        os.environ["EAGLERAY_FAILPOINTS"] = f"{point}:kill"
    checkpoints.commit(folder, job_id=7, attempt=1, epoch=epoch, metrics={}, portable_file="model.pt",
                       is_best=True, best_value=0.5, best_epoch=epoch)
"""


@pytest.mark.fault
@pytest.mark.parametrize(
    ("point", "epoch"), [("ckpt.after_file", 1), ("ckpt.before_manifest", 1), ("ckpt.after_manifest", 2)]
)
def test_f2_a_kill_in_a_commit_leaves_the_earlier_or_the_new_checkpoint_and_its_rest_is_swept(
    open_s3: OpenS3, s3_server: SeaweedServer, tmp_path: Path, point: str, epoch: int
) -> None:
    store = open_s3()
    environ = {**os.environ, **s3_server.environ, "EAGLERAY_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", COMMIT, store.location, str(tmp_path), point]
    assert subprocess.run(command, env=environ, check=False).returncode == -signal.SIGKILL
    checkpoints = Checkpoints(store, "job")
    manifest = checkpoints.newest_valid(lambda message: None)
    assert manifest is not None
    assert manifest.epoch == epoch
    checkpoints.fetch(manifest, tmp_path / "resume")
    for name in ("model.pt", "optimizer.bin"):
        assert (tmp_path / "resume" / name).read_text() == f"{name} {epoch}" * 1000
    checkpoints.republish()
    assert store.get_bytes("job/last.pt") == store.get_bytes("job/best.pt") == (f"model.pt {epoch}" * 1000).encode()
    checkpoints.sweep(2)
    folders = {info.key.split("/")[3] for info in store.list("job/attempts")}
    assert folders == {f"epoch-{number:05d}" for number in range(1, epoch + 1)}


# F20: a full disk


@pytest.mark.fault
def test_f20_a_full_disk_at_a_fetch_is_named_and_leaves_nothing(
    store: S3Store, big: tuple[Path, bytes], tmp_path: Path
) -> None:
    store.put_file("big", big[0])
    with small_disk(tmp_path / "small", "9m") as small:
        with pytest.raises(DiskFullError, match="no space left"):
            store.fetch_file("big", small / "out", sha256=None)
        with pytest.raises(DiskFullError, match="no space left"):
            store.fetch_many({"out": ("big", entry_of(big[1]))}, small)
        assert [path for path in small.rglob("*") if path.is_file()] == []


# Copies and addresses


def test_a_large_copy_is_made_by_the_server_in_equal_parts(
    store: S3Store, proxy: StrictProxy, big: tuple[Path, bytes]
) -> None:
    store.put_file("big", big[0])
    proxy.forget()
    store.copy("big", "copy")
    assert proxy.count(is_data) == 0
    assert proxy.count(is_part) == 4
    assert store.digest("copy") == entry_of(big[1])
    assert store.identify("copy").sha256 == entry_of(big[1]).sha256


def test_f17_a_large_copy_whose_answer_was_lost_is_a_success(
    store: S3Store, big: tuple[Path, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SeaweedFS completes an upload twice; Amazon knows it no more."""
    store.put_file("big", big[0])
    attempt = store.bucket.attempt

    def lost(operation: str, key: str = "", **arguments: Any) -> Any:
        done = attempt(operation, key, **arguments)
        if operation == "complete_multipart_upload":
            gone = {"Error": {"Code": "NoSuchUpload"}, "ResponseMetadata": {"HTTPStatusCode": 404}}
            raise ClientError(gone, operation)
        return done

    monkeypatch.setattr(store.bucket, "attempt", lost)
    store.copy("big", "copy")
    assert store.digest("copy") == entry_of(big[1])


def test_files_of_any_size_fit_in_the_number_of_parts() -> None:
    options = S3Options()
    for size_bytes in (1, 33 * MIB, 100 * GIB, 5000 * GIB):
        part_bytes = options.parts_of(size_bytes, options.part_bytes)
        assert -(-size_bytes // part_bytes) <= 10_000
        assert part_bytes % MIB == 0


def test_a_presigned_address_works_without_keys_until_it_expires(
    store: S3Store, s3_server: SeaweedServer, open_s3: OpenS3
) -> None:
    direct = open_s3()
    direct.put_bytes("a b/ü.png", b"picture")
    address = direct.presign("a b/ü.png", 1)
    assert address is not None
    assert SECRET_KEY not in address
    assert httpx.get(address).content == b"picture"
    time.sleep(2.1)
    assert httpx.get(address).status_code == 403
    with pytest.raises(StorageError, match="cannot be valid for 0 s"):
        direct.presign("a", 0)


# What is refused, and how it is said


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


REFUSALS: dict[str, tuple[Callable[[S3Access], S3Access], str, str]] = {
    "wrong key": (
        lambda access: replace(access, access_key_id="NOBODY"),
        "does not accept the access key",
        "AWS_ACCESS_KEY_ID",
    ),
    "wrong secret": (
        lambda access: replace(access, secret_access_key="wrong"),
        "does not accept the credentials",
        "AWS_SECRET_ACCESS_KEY",
    ),
    "no secret": (
        lambda access: replace(access, secret_access_key=None),
        "no complete credentials",
        "AWS_SECRET_ACCESS_KEY",
    ),
    "endpoint": (
        lambda access: replace(access, endpoint_url=f"http://127.0.0.1:{closed_port()}"),
        "Nothing answers at http",
        "AWS_S3_ENDPOINT_URL",
    ),
    "no address": (lambda access: replace(access, endpoint_url="nonsense"), "'nonsense'", "https://<account>"),
    "no profile": (lambda access: replace(access, profile="nobody"), "nobody", "EAGLERAY_S3_PROFILE"),
}


@pytest.mark.parametrize("case", REFUSALS)
@pytest.mark.parametrize("method", ["check", "get", "head", "put", "list"])
def test_a_refusal_says_what_is_wrong_and_what_to_set(
    s3_server: SeaweedServer, open_s3: OpenS3, case: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    change, message, hint = REFUSALS[case]
    store = open_s3(change(s3_server.access))
    calls: dict[str, Callable[[], object]] = {
        "check": store.check,
        "get": lambda: store.get_bytes("a"),
        "head": lambda: store.exists("a"),
        "put": lambda: store.put_bytes("a", b"x"),
        "list": lambda: list(store.list("")),
    }
    started = time.monotonic()
    with pytest.raises(StorageError) as caught:
        calls[method]()
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert SECRET_KEY not in str(caught.value)
    assert time.monotonic() - started < 10
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize("method", ["get_bytes", "exists"])
def test_a_bucket_that_is_not_there_is_named(s3_server: SeaweedServer, method: str) -> None:
    store = S3Store.open("s3://not-there/x", s3_server.access, FAST)
    with pytest.raises(StorageError, match="no bucket 'not-there'") as caught:
        getattr(store, method)("a")
    assert not isinstance(caught.value, NotFoundError)
    store.close()


def test_a_missing_permission_is_named(s3_server: SeaweedServer, open_s3: OpenS3) -> None:
    open_s3().put_bytes("a", b"x")
    reader = open_s3(replace(s3_server.access, access_key_id=READER_KEY, secret_access_key=READER_SECRET))
    assert reader.get_bytes("a") == b"x"
    with pytest.raises(StorageError, match="may not write 'b'") as caught:
        reader.put_bytes("b", b"x")
    assert "s3:PutObject" in caught.value.hint
    with pytest.raises(StorageError, match="may not delete"):
        reader.delete("a")


@pytest.mark.parametrize(
    ("text", "bucket", "prefix"),
    [("s3://bkt", "bkt", ""), ("s3://bkt/", "bkt", ""), ("s3://b-k.t/a/b/", "b-k.t", "a/b")],
)
def test_an_address_is_a_bucket_and_a_prefix(text: str, bucket: str, prefix: str) -> None:
    assert parse_location(text) == S3Location(bucket, prefix)


@pytest.mark.parametrize(
    "text", ["s3://", "s3:///x", "s3://Bucket", "s3://a", "s3://bkt/../x", "s3://bkt//x/./y", "s3://b..t"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(StorageError):
        parse_location(text)


def test_credentials_in_an_address_are_refused_without_being_shown() -> None:
    with pytest.raises(StorageError) as caught:
        parse_location("s3://KEY:verysecret@bucket/x")
    assert "verysecret" not in str(caught.value) + repr(caught.value)


@pytest.mark.parametrize(
    ("endpoint", "region", "expected"),
    [
        ("https://abc123.r2.cloudflarestorage.com", None, "auto"),
        ("https://abc123.eu.r2.cloudflarestorage.com", None, "auto"),
        ("https://abc123.r2.cloudflarestorage.com", "auto", "auto"),
        ("http://127.0.0.1:9000", None, "us-east-1"),
        ("http://127.0.0.1:9000", "eu-west-1", "eu-west-1"),
        (None, "eu-west-1", "eu-west-1"),
    ],
)
def test_r2s_region_is_auto_by_itself(
    endpoint: str | None, region: str | None, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    access = S3Access(endpoint, region, access_key_id="a", secret_access_key="b")
    assert Bucket(S3Location("bkt"), access, FAST).region == expected


def test_the_environment_says_how_buckets_are_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    assert load_s3_access() == S3Access()
    values = {
        "AWS_S3_ENDPOINT_URL": "http://x",
        "AWS_REGION": "auto",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "verysecret",
        "AWS_SESSION_TOKEN": "verysecret",
        "EAGLERAY_S3_PROFILE": "mine",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    access = load_s3_access()
    assert access == S3Access("http://x", "auto", "mine", "key", "verysecret", "verysecret")
    assert "verysecret" not in repr(access)


def test_what_another_node_needs_are_keys_not_a_profile(
    s3_server: SeaweedServer, open_s3: OpenS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = s3_server.access
    (tmp_path / "credentials").write_text(
        f"[mine]\naws_access_key_id = {access.access_key_id}\naws_secret_access_key = {access.secret_access_key}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    here = open_s3(S3Access(access.endpoint_url, "auto", profile="mine"))
    here.put_bytes("a", b"x")
    travels = store_access(here)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    there = open_store(here.location, travels)
    assert there.get_bytes("a") == b"x"


def test_a_key_that_is_too_long_with_the_prefix_is_refused(s3_server: SeaweedServer) -> None:
    long = "/".join(["p" * 200] * 4)
    store = S3Store.open(f"s3://{BUCKET}/{long}", s3_server.access, FAST)
    with pytest.raises(StorageError, match="longer than the 1024 bytes"):
        store.put_bytes("/".join(["k" * 200] * 2), b"")
    store.close()


# The proxy itself: what it is for


def raw(proxy: StrictProxy, **settings: Any) -> Any:
    return boto3.Session(proxy.access.access_key_id, proxy.access.secret_access_key).client(
        "s3", endpoint_url=proxy.endpoint, region_name=settings.pop("region", "auto"), config=Config(**settings)
    )


def test_the_proxy_refuses_what_r2_refuses(proxy: StrictProxy) -> None:
    cases = [
        ({}, {}, "NotImplemented"),  # botocore's CRC trailers
        ({"request_checksum_calculation": "when_required"}, {}, "NothingGuardsTheBody"),
        ({"request_checksum_calculation": "when_required", "region": "us-west-2"}, {}, "InvalidRegionName"),
        ({"request_checksum_calculation": "when_required"}, {"Metadata": {"a": "x" * 9000}}, "MetadataTooLarge"),
    ]
    for settings, arguments, code in cases:
        client = raw(proxy, **settings)
        with pytest.raises(ClientError) as caught:
            client.put_object(Bucket=BUCKET, Key="x", Body=b"x", **arguments)
        assert caught.value.response["Error"]["Code"] == code
        client.close()


def test_the_proxy_refuses_unequal_parts(proxy: StrictProxy, open_s3: OpenS3, big: tuple[Path, bytes]) -> None:
    store = open_s3(proxy.access)
    upload = store.bucket.call("create_multipart_upload", "u", ChecksumAlgorithm="SHA256")["UploadId"]
    parts = []
    for number, size in enumerate((5 * MIB, 6 * MIB, MIB), 1):
        data = big[1][:size]
        checksum = base64_of(hashlib.sha256(data).digest())
        etag = store.bucket.call(
            "upload_part", "u", UploadId=upload, PartNumber=number, Body=data, ChecksumSHA256=checksum
        )["ETag"]
        parts.append({"PartNumber": number, "ETag": etag, "ChecksumSHA256": checksum})
    with pytest.raises(StorageError, match="InvalidPart"):
        store.bucket.call("complete_multipart_upload", "u", UploadId=upload, MultipartUpload={"Parts": parts})
