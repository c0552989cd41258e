"""Weights are kept once, verified where their sha256 is known, and accepted where a person put them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from eagleray.contract.errors import StorageError, WeightsError
from eagleray.storage.cache import NodeCache
from eagleray.storage.local import LocalStore
from eagleray.storage.store import Store
from eagleray.storage.weights import fetch_weights, find_weights, keep_weights, weights_location
from eagleray.testing.s3_proxy import Fault, StrictProxy

from .conftest import OpenS3

KEY = "pretrained_weights/ultralytics/yolo11n.pt"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "downloaded.pt"
    path.write_bytes(b"weights")
    return path


def test_what_was_never_kept_is_not_found(store: LocalStore) -> None:
    assert find_weights(store, "ultralytics", "yolo11n") is None


def test_what_was_kept_is_found(store: LocalStore, weights: Path) -> None:
    keep_weights(store, "ultralytics", "yolo11n", weights)
    assert find_weights(store, "ultralytics", "yolo11n") == KEY
    assert store.get_bytes(KEY) == b"weights"


def test_a_file_placed_by_a_person_at_the_location_shown_is_found(store: LocalStore) -> None:
    path = Path(weights_location(store, "ultralytics", "yolo11n"))
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    assert find_weights(store, "ultralytics", "yolo11n") == KEY


def test_a_name_with_a_slash_is_one_file(store: LocalStore, weights: Path) -> None:
    key = keep_weights(store, "huggingface", "google/vit-base", weights)
    assert key == "pretrained_weights/huggingface/google%2Fvit-base.pt"


def test_keeping_the_same_bytes_again_is_fine(store: LocalStore, weights: Path) -> None:
    assert keep_weights(store, "ultralytics", "yolo11n", weights) == KEY
    assert keep_weights(store, "ultralytics", "yolo11n", weights) == KEY


def test_other_bytes_do_not_replace_what_is_kept(store: LocalStore, weights: Path) -> None:
    keep_weights(store, "ultralytics", "yolo11n", weights)
    weights.write_bytes(b"others!")
    with pytest.raises(WeightsError, match="Other weights are kept"):
        keep_weights(store, "ultralytics", "yolo11n", weights)
    assert store.get_bytes(KEY) == b"weights"


def test_damaged_weights_are_refused_with_what_to_do(store: LocalStore, weights: Path) -> None:
    keep_weights(store, "ultralytics", "yolo11n", weights)
    (store.root / KEY).write_bytes(b"weightz")
    with pytest.raises(WeightsError, match="damaged or were replaced") as caught:
        find_weights(store, "ultralytics", "yolo11n")
    assert "Delete" in caught.value.hint


def test_a_keep_that_died_between_the_two_files_is_whole(store: LocalStore, weights: Path) -> None:
    keep_weights(store, "ultralytics", "yolo11n", weights)
    store.delete(f"{KEY}.sha256")
    assert find_weights(store, "ultralytics", "yolo11n") == KEY


def test_a_keep_that_dies_over_an_old_sha256_is_whole(
    store: LocalStore, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put_bytes(f"{KEY}.sha256", b"0" * 64)

    def killed(key: str, data: bytes, *, if_absent: bool = False) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "put_bytes", killed)
    with pytest.raises(KeyboardInterrupt):
        keep_weights(store, "ultralytics", "yolo11n", weights)
    assert find_weights(store, "ultralytics", "yolo11n") == KEY


def test_a_sha256_without_its_file_serves_nothing_and_condemns_nothing(store: LocalStore, weights: Path) -> None:
    store.put_bytes(f"{KEY}.sha256", b"0" * 64)
    assert find_weights(store, "ultralytics", "yolo11n") is None
    keep_weights(store, "ultralytics", "yolo11n", weights)
    assert find_weights(store, "ultralytics", "yolo11n") == KEY


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "snapshot"
    (path / "tokenizer").mkdir(parents=True)
    (path / "model.safetensors").write_bytes(b"tensors")
    (path / "tokenizer" / "vocab.txt").write_bytes(b"words")
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[NodeCache]:
    made = NodeCache(tmp_path / "cache")
    yield made
    made.close()


@pytest.fixture(params=["folder", "bucket"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return LocalStore(tmp_path / "store")
    opened: Store = request.getfixturevalue("open_s3")(request.getfixturevalue("proxy").access)
    return opened


FOLDER = "pretrained_weights/huggingface/google%2Fvit-base"


def test_weights_of_several_files_are_kept_and_fetched_as_a_folder(
    any_store: Store, folder: Path, cache: NodeCache, tmp_path: Path
) -> None:
    assert keep_weights(any_store, "huggingface", "google/vit-base", folder) == FOLDER
    assert keep_weights(any_store, "huggingface", "google/vit-base", folder) == FOLDER
    assert find_weights(any_store, "huggingface", "google/vit-base") == FOLDER
    path = fetch_weights(any_store, "huggingface", "google/vit-base", tmp_path / "job", cache)
    assert path == tmp_path / "job" / "google/vit-base"
    assert (path / "model.safetensors").read_bytes() == b"tensors"
    assert (path / "tokenizer" / "vocab.txt").read_bytes() == b"words"


def test_other_files_do_not_replace_a_kept_folder(any_store: Store, folder: Path) -> None:
    keep_weights(any_store, "huggingface", "google/vit-base", folder)
    (folder / "model.safetensors").write_bytes(b"others!")
    with pytest.raises(WeightsError, match="Other weights are kept"):
        keep_weights(any_store, "huggingface", "google/vit-base", folder)


def test_a_folder_without_its_manifest_is_none_and_can_be_kept_again(any_store: Store, folder: Path) -> None:
    any_store.put_bytes(f"{FOLDER}/model.safetensors", b"half")
    assert find_weights(any_store, "huggingface", "google/vit-base") is None
    keep_weights(any_store, "huggingface", "google/vit-base", folder)
    assert any_store.get_bytes(f"{FOLDER}/model.safetensors") == b"tensors"


@pytest.mark.parametrize("text", ["{", '{"files": {"../evil": {"sha256": "%s", "size_bytes": 1}}}' % ("0" * 64)])
def test_a_manifest_that_leads_elsewhere_or_cannot_be_read_is_refused(store: LocalStore, text: str) -> None:
    store.put_bytes(f"{FOLDER}/manifest.json", text.encode())
    with pytest.raises(WeightsError, match="manifest of the weights"):
        find_weights(store, "huggingface", "google/vit-base")


def test_a_damaged_file_of_a_folder_is_named(store: LocalStore, folder: Path, cache: NodeCache, tmp_path: Path) -> None:
    keep_weights(store, "huggingface", "google/vit-base", folder)
    (store.root / FOLDER / "model.safetensors").write_bytes(b"tensorz")
    with pytest.raises(StorageError, match=r"model\.safetensors.* is damaged"):
        fetch_weights(store, "huggingface", "google/vit-base", tmp_path / "job", cache)


def test_weights_are_a_jobs_own_copy(any_store: Store, weights: Path, cache: NodeCache, tmp_path: Path) -> None:
    keep_weights(any_store, "ultralytics", "yolo11n", weights)
    for job in ("one", "two"):
        path = fetch_weights(any_store, "ultralytics", "yolo11n", tmp_path / job, cache)
        assert path == tmp_path / job / "yolo11n.pt"
        assert path.read_bytes() == b"weights"
        path.write_bytes(b"the framework rewrites what it loads")


def test_there_may_be_none_to_fetch(any_store: Store, cache: NodeCache, tmp_path: Path) -> None:
    assert fetch_weights(any_store, "ultralytics", "none", tmp_path, cache) is None


def test_a_later_job_on_the_node_reads_no_weights(
    open_s3: OpenS3, proxy: StrictProxy, weights: Path, folder: Path, cache: NodeCache, tmp_path: Path
) -> None:
    store = open_s3(proxy.access)
    keep_weights(store, "ultralytics", "yolo11n", weights)
    keep_weights(store, "huggingface", "google/vit-base", folder)
    for number, gets in ((1, {KEY, f"{FOLDER}/model.safetensors", f"{FOLDER}/tokenizer/vocab.txt"}), (2, set())):
        proxy.forget()
        for framework, name in (("ultralytics", "yolo11n"), ("huggingface", "google/vit-base")):
            assert find_weights(store, framework, name)
            assert fetch_weights(store, framework, name, tmp_path / str(number), cache)
        read = {request.key.partition("/")[2] for request in proxy.requests if request.reads_data}
        assert {key for key in read if not key.endswith("manifest.json")} == gets


def test_damage_in_a_bucket_is_found_when_the_weights_are_fetched(
    open_s3: OpenS3, proxy: StrictProxy, weights: Path, cache: NodeCache, tmp_path: Path
) -> None:
    store = open_s3(proxy.access)
    keep_weights(store, "ultralytics", "yolo11n", weights)
    proxy.inject(Fault.FLIP_DOWN, lambda request: request.reads_data)
    with pytest.raises(StorageError, match="is damaged"):
        fetch_weights(store, "ultralytics", "yolo11n", tmp_path / "job", cache)


def test_a_file_that_someone_put_in_a_bucket_by_other_means_is_held_against_its_sha256(
    open_s3: OpenS3, cache: NodeCache, tmp_path: Path
) -> None:
    store = open_s3()
    client, bucket = store.bucket.client, store.bucket.location.bucket
    client.put_object(Bucket=bucket, Key=store.bucket.full_key(KEY), Body=b"mine")
    path = fetch_weights(store, "ultralytics", "yolo11n", tmp_path / "one", cache)
    assert path is not None
    assert path.read_bytes() == b"mine"
    store.put_bytes(f"{KEY}.sha256", b"0" * 64)
    with pytest.raises(WeightsError, match="damaged or were replaced"):
        fetch_weights(store, "ultralytics", "yolo11n", tmp_path / "two", cache)
