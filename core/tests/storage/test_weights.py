"""Weights are kept once, verified where their sha256 is known, and accepted where a person put them."""

from __future__ import annotations

from pathlib import Path

import pytest

from eagleray.contract.errors import WeightsError
from eagleray.storage.local import LocalStore
from eagleray.storage.weights import find_weights, keep_weights, weights_location

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
