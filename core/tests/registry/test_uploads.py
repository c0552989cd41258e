from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eagleray.contract.errors import ConfigError, UnknownNameError
from eagleray.registry import Limits
from eagleray.registry.uploads import MAX_PART_BYTES, MAX_PARTS, UploadError, Uploads
from eagleray.storage.local import LocalStore
from eagleray.storage.store import ObjectInfo

CONTENT = random.Random(0).randbytes(10_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def uploads(store: LocalStore) -> Uploads:
    return Uploads(store)


def put(uploads: Uploads, upload_id: str, start: int, end: int) -> None:
    uploads.put(upload_id, start, CONTENT[start:end], sha256(CONTENT[start:end]))


def test_parts_in_any_order_make_the_whole(uploads: Uploads, tmp_path: Path) -> None:
    upload = uploads.create(len(CONTENT), SHA256, filename="coins.zip")
    for start, end in ((7000, 10_000), (0, 2500), (2500, 7000)):
        put(uploads, upload.id, start, end)
    assert uploads.finish(upload.id, tmp_path / "file").filename == "coins.zip"
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_another_process_goes_on_with_what_is_missing(uploads: Uploads, store: LocalStore, tmp_path: Path) -> None:
    upload = uploads.create(len(CONTENT), SHA256)
    put(uploads, upload.id, 0, 4000)
    put(uploads, upload.id, 6000, 10_000)
    restarted = Uploads(LocalStore(store.root))
    assert restarted.show(upload.id).received == ((0, 4000), (6000, 10_000))
    put(restarted, upload.id, 4000, 6000)
    restarted.finish(upload.id, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_the_same_part_again_is_fine(uploads: Uploads) -> None:
    upload = uploads.create(len(CONTENT), SHA256)
    put(uploads, upload.id, 0, 4000)
    put(uploads, upload.id, 0, 4000)
    assert uploads.show(upload.id).received == ((0, 4000),)


def test_a_part_that_was_damaged_on_its_way_is_refused(uploads: Uploads) -> None:
    upload = uploads.create(len(CONTENT), SHA256)
    with pytest.raises(UploadError, match="damaged on its way"):
        uploads.put(upload.id, 0, b"other", sha256(CONTENT[:5]))
    assert not uploads.show(upload.id).received


def test_other_bytes_for_the_same_place_are_refused(uploads: Uploads) -> None:
    upload = uploads.create(len(CONTENT), SHA256)
    put(uploads, upload.id, 0, 4000)
    with pytest.raises(UploadError, match="0 to 4,000"):
        uploads.put(upload.id, 3999, b"x", sha256(b"x"))


@pytest.mark.parametrize(("start", "data"), [(-1, b"x"), (0, b""), (10_000, b"x"), (9_999, b"xx"), (1 << 60, b"x")])
def test_a_part_outside_the_upload_is_refused(start: int, data: bytes, uploads: Uploads) -> None:
    upload = uploads.create(len(CONTENT), SHA256)
    with pytest.raises(ConfigError, match="not a part"):
        uploads.put(upload.id, start, data, sha256(data))


def test_an_upload_with_a_gap_is_not_finished(uploads: Uploads, tmp_path: Path) -> None:
    upload = uploads.create(len(CONTENT), SHA256)
    put(uploads, upload.id, 0, 4000)
    put(uploads, upload.id, 4001, 10_000)
    with pytest.raises(UploadError, match="not whole"):
        uploads.finish(upload.id, tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_a_whole_of_another_sha256_is_refused(uploads: Uploads, tmp_path: Path) -> None:
    upload = uploads.create(len(CONTENT), sha256(b"announced"))
    put(uploads, upload.id, 0, 10_000)
    with pytest.raises(UploadError, match="not the announced"):
        uploads.finish(upload.id, tmp_path / "file")
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize(("size_bytes", "digest"), [(0, SHA256), (-1, SHA256), (5, "x"), (5, ""), (2_000, SHA256)])
def test_what_cannot_be_an_upload_is_refused(size_bytes: int, digest: str, store: LocalStore) -> None:
    with pytest.raises(ConfigError):
        Uploads(store, Limits(max_bytes=1_000)).create(size_bytes, digest)


@pytest.mark.parametrize("upload_id", ["", "..", "../..", "a" * 32, "A" * 32, "%2e%2e", "x\0"])
def test_an_unknown_upload_is_told(upload_id: str, uploads: Uploads) -> None:
    with pytest.raises(UnknownNameError):
        uploads.show(upload_id)
    uploads.delete(upload_id)


def test_more_than_the_parts_can_hold_is_refused_before_a_byte_is_sent(uploads: Uploads) -> None:
    with pytest.raises(ConfigError, match="too large"):
        uploads.create(MAX_PARTS * MAX_PART_BYTES + 1, SHA256)
    assert uploads.create(MAX_PARTS * MAX_PART_BYTES, SHA256)


def test_the_parts_are_not_listed_for_each_part(store: LocalStore) -> None:
    listed: list[str] = []

    class Counting(LocalStore):
        def list(self, prefix: str) -> Iterator[ObjectInfo]:
            listed.append(prefix)
            return super().list(prefix)

    uploads = Uploads(Counting(store.root))
    upload = uploads.create(len(CONTENT), SHA256)
    for start in range(0, len(CONTENT), 500):
        put(uploads, upload.id, start, start + 500)
    assert len(listed) <= 1
    assert uploads.show(upload.id).is_whole


def test_old_uploads_and_lost_parts_are_swept(uploads: Uploads, store: LocalStore) -> None:
    old, new = uploads.create(len(CONTENT), SHA256), uploads.create(len(CONTENT), SHA256)
    for upload in (old, new):
        put(uploads, upload.id, 0, 4000)
    store.delete(f"uploads/{old.id}/session.json")
    assert uploads.sweep() == 1
    assert uploads.sweep(now=datetime.now(UTC) + timedelta(days=8)) == 1
    assert not list(store.list("uploads"))


@settings(max_examples=40, deadline=None)
@given(cuts=st.sets(st.integers(1, len(CONTENT) - 1), max_size=12), seed=st.integers(0, 999))
def test_any_cut_in_any_order_with_repeats_makes_the_whole(
    cuts: set[int], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("upload")
    uploads = Uploads(LocalStore(root / "store"))
    upload = uploads.create(len(CONTENT), SHA256)
    edges = [0, *sorted(cuts), len(CONTENT)]
    parts = list(itertools.pairwise(edges))
    rng = random.Random(seed)
    for start, end in rng.sample(parts, len(parts)) + rng.choices(parts, k=2):
        put(uploads, upload.id, start, end)
    uploads.finish(upload.id, root / "file")
    assert (root / "file").read_bytes() == CONTENT
