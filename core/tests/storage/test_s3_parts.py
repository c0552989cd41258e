"""Uploads in parts and copies: servers and writers that die, orphans, a full disk (F2, F19, F20)."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError

from eagleray.contract.errors import StorageError
from eagleray.storage.checkpoints import Checkpoints
from eagleray.storage.disk import DiskFullError
from eagleray.storage.s3.options import GIB, MIB, S3Options
from eagleray.storage.s3.store import S3Store
from eagleray.storage.store import StoreUnreachableError
from eagleray.storage.sweep import sweep, sweep_daily
from eagleray.testing.disk import small_disk
from eagleray.testing.s3_proxy import Fault, StrictProxy, strict_proxy
from eagleray.testing.s3_server import SECRET_KEY, SeaweedServer, seaweed
from eagleray.testing.stores import entry_of

from .conftest import BUCKET, FAST, OpenS3, is_data, is_part

COMMITTING = Path(__file__).with_name("committing.py")


def break_off(store: S3Store, proxy: StrictProxy, key: str, file: Path, part: int) -> None:
    """An upload of `file` that gets no further than before `part`."""
    proxy.inject(Fault.FAIL, lambda request: is_part(request) and request.query["partNumber"] == str(part))
    with pytest.raises(StoreUnreachableError):
        store.put_file(key, file)
    proxy.heal()


# F19: uploads in parts


def test_f19_a_second_try_sends_only_the_parts_that_are_missing(
    store: S3Store, open_s3: OpenS3, proxy: StrictProxy, big: tuple[Path, bytes]
) -> None:
    break_off(store, proxy, "big", big[0], 4)
    proxy.forget()
    open_s3(proxy.access).put_file("big", big[0])  # another process, by the note on the disk
    assert {request.query["partNumber"] for request in proxy.requests if is_part(request)} <= {"4", "5"}
    assert store.digest("big") == entry_of(big[1])
    assert list(Path(big[0].parent / "uploads").iterdir()) == []


def test_f19_an_upload_of_other_bytes_is_not_gone_on_with(
    store: S3Store, proxy: StrictProxy, big: tuple[Path, bytes]
) -> None:
    break_off(store, proxy, "big", big[0], 5)
    other = bytes(MIB) + big[1][MIB:]
    big[0].write_bytes(other)
    store.put_file("big", big[0])
    assert store.digest("big") == entry_of(other)
    assert store.identify("big").sha256 == entry_of(other).sha256


@pytest.mark.parametrize("forget", ["abort", "garbage"])
def test_f19_an_upload_that_is_gone_starts_anew(
    store: S3Store, proxy: StrictProxy, big: tuple[Path, bytes], forget: str
) -> None:
    break_off(store, proxy, "big", big[0], 3)
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
    break_off(store, proxy, "checkpoints/test-jobs/job_1/attempts/1/epoch-00003/model.pt", big[0], 5)
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


@pytest.mark.fault
@pytest.mark.parametrize(
    ("point", "epoch"), [("ckpt.after_file", 1), ("ckpt.before_manifest", 1), ("ckpt.after_manifest", 2)]
)
def test_f2_a_kill_in_a_commit_leaves_the_earlier_or_the_new_checkpoint_and_its_rest_is_swept(
    open_s3: OpenS3, s3_server: SeaweedServer, tmp_path: Path, point: str, epoch: int
) -> None:
    store = open_s3()
    environ = {**os.environ, **s3_server.environ, "EAGLERAY_HOME": str(tmp_path / "home")}
    command = [sys.executable, str(COMMITTING), store.location, "job", str(tmp_path), "2", point]
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
    address = direct.presign("a b/ü.png", 3)
    assert address is not None
    assert SECRET_KEY not in address
    assert httpx.get(address).content == b"picture"
    time.sleep(4.1)
    assert httpx.get(address).status_code == 403
    with pytest.raises(StorageError, match="cannot be valid for 0 s"):
        direct.presign("a", 0)
