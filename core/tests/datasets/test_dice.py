"""DICE datasets: what is found, how it is paired, and what is refused with which words."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from eagleray.datasets import read_dataset
from eagleray.testing.data import (
    write_keypoint_dataset,
)

Refusal = Callable[..., str]


def describe(root: Path, text: str) -> None:
    (root / "data.yaml").write_text(text, encoding="utf-8")


def label(root: Path, text: str) -> None:
    (root / "train/labels/train-0000.txt").write_text(text, encoding="utf-8")


STEMS = st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="/\0"), min_size=1, max_size=30
).filter(lambda stem: not stem.startswith(".") and len(stem.encode()) < 200)
SUFFIXES = st.sampled_from([".jpg", ".JPG", ".jpeg", ".Png", ".bmp", ".webp", ".tif", ".TIFF"])


def objects_for_209(stems: list[str]) -> list[int]:
    """209 objects over 32 pictures, some of them backgrounds."""
    return [0, 0, *([7] * 29), 209 - 7 * 29][: len(stems)]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stems=st.lists(STEMS, min_size=32, max_size=32, unique=True), suffix=SUFFIXES)
def test_32_pictures_and_209_annotations_stay_so_whatever_their_names(
    stems: list[str], suffix: str, tmp_path: Path
) -> None:
    root = tmp_path / "named"
    shutil.rmtree(root, ignore_errors=True)
    write_named(root, stems, suffix)

    report = read_dataset(root, "detect")

    train = report.dataset.splits["train"]
    assert (train.num_images, train.num_annotations, train.num_backgrounds) == (32, 209, 2)


def write_named(root: Path, stems: list[str], suffix: str) -> None:
    kind = {".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF"}.get(suffix.lower(), suffix[1:].upper())
    for split in ("train", "valid"):
        (root / split / "images").mkdir(parents=True)
        (root / split / "labels").mkdir()
    for stem, count in zip(stems, objects_for_209(stems), strict=True):
        Image.new("RGB", (12, 12)).save(root / f"train/images/{stem}{suffix}", kind)
        rows = "".join(f"0 .5 .5 .1 0.{number + 1}\n" for number in range(count))
        (root / f"train/labels/{stem}.txt").write_text(rows)
    Image.new("RGB", (12, 12)).save(root / "valid/images/v.png")
    (root / "valid/labels/v.txt").write_text("0 .5 .5 .1 .1\n")
    describe(root, "names: [a]\n")


def test_names_that_a_prototype_lost_are_all_paired(tmp_path: Path) -> None:
    stems = ["IMG", "a.b", "a", "ünï", "with space", "x.jpg", "train", "images", "classes", *map(str, range(23))]
    write_named(tmp_path, stems, ".JPG")

    assert read_dataset(tmp_path, "detect").dataset.splits["train"].num_annotations == 209


@pytest.mark.parametrize(
    "names",
    [
        "[a, b]",
        "{0: a, 1: b}",
        "{0: a, '1': b}",
        "{1: b, 0: a}",
        "\n  - a\n  - b",
        "\n  0: a\n  1: b",
        "['a', \"b\"]",
    ],
)
def test_names_are_a_list_or_a_mapping_in_every_form(names: str, root: Path) -> None:
    describe(root, f"nc: 2\nnames: {names}\n")

    assert read_dataset(root, "detect").dataset.classes == ("a", "b")


def test_the_ids_of_a_mapping_give_the_order(root: Path) -> None:
    describe(root, "names: {1: a, 0: b}\n")

    assert read_dataset(root, "detect").dataset.classes == ("b", "a")


def test_classes_called_no_and_007_keep_their_names(root: Path) -> None:
    describe(root, "names: [no, 007]\n")

    assert read_dataset(root, "detect").dataset.classes == ("no", "007")


@pytest.mark.parametrize(
    "paths",
    [
        "",
        "train: train/images\nval: valid/images",
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images",
        "train: ./train/images\nval: ./valid",
        "path: .\ntrain: train\nval: valid",
        "path: ../set\ntrain: train/images\nval: valid/images\ntest:",
        "train: [train/images]\nvalid: valid/images\ntest: null",
        "train: train\\images\nval: valid\\images",
    ],
)
def test_the_paths_that_exporters_write_are_found(paths: str, root: Path) -> None:
    describe(root, f"{paths}\nnames: [a, b]\n")

    report = read_dataset(root, "detect")

    assert {name: split.images for name, split in report.dataset.splits.items()} == {
        "train": "train/images",
        "val": "valid/images",
    }
    assert report.warnings == ()


def test_absolute_paths_inside_the_folder_are_found(root: Path) -> None:
    describe(root, f"path: {root}\ntrain: {root}/train/images\nval: valid/images\nnames: [a, b]\n")

    assert read_dataset(root, "detect").dataset.splits["train"].images == "train/images"


@pytest.mark.parametrize("path", ["/", "/home/someone/set", "../../.."])
def test_paths_that_lead_out_are_never_followed(path: str, root: Path) -> None:
    outside = root.parent / "train/images"
    outside.mkdir(parents=True)
    Image.new("RGB", (12, 12)).save(outside / "stranger.png")
    describe(root, f"path: {path}\ntrain: {outside}\nval: valid/images\nnames: [a, b]\n")

    report = read_dataset(root, "detect")

    assert report.dataset.splits["train"].images == "train/images"
    assert "not in the dataset" in report.warnings[0]


@pytest.mark.parametrize("folder", ["val", "validation"])
def test_other_names_of_the_validation_folder_are_found(folder: str, root: Path) -> None:
    (root / "valid").rename(root / folder)
    describe(root, "names: [a, b]\n")

    assert read_dataset(root, "detect").dataset.splits["val"].images == f"{folder}/images"


def test_images_and_labels_on_top_of_the_splits_are_found(root: Path) -> None:
    for kind in ("images", "labels"):
        for split in ("train", "valid"):
            (root / kind).mkdir(exist_ok=True)
            (root / split / kind).rename(root / kind / split)
    describe(root, "train: images/train\nval: images/valid\nnames: [a, b]\n")

    report = read_dataset(root, "detect")

    assert report.dataset.splits["train"].images == "images/train"
    assert report.dataset.splits["train"].num_backgrounds == 0


def test_the_description_itself_may_be_named(root: Path) -> None:
    (root / "data.yaml").rename(root / "mine.yaml")

    assert read_dataset(root / "mine.yaml", "detect").dataset.path == root


def test_backgrounds_are_counted_and_said(root: Path) -> None:
    label(root, "\n")
    (root / "train/labels/train-0001.txt").unlink()

    report = read_dataset(root, "detect")

    assert report.dataset.splits["train"].num_backgrounds == 2
    assert "train: 2 of 6 pictures" in report.warnings[0]
    assert "(1 without a label file, 1 with an empty one)" in report.warnings[0]


def test_keypoints_and_their_mirror_come_from_the_description(tmp_path: Path) -> None:
    dataset = read_dataset(write_keypoint_dataset(tmp_path / "set"), "pose").dataset

    assert dataset.keypoints == (2, 3)
    assert dataset.flip_index == (1, 0)


def test_without_a_mirror_keypoints_are_read_and_a_warning_says_so(tmp_path: Path) -> None:
    root = write_keypoint_dataset(tmp_path / "set")
    describe(root, "kpt_shape: [2, 3]\nnames: [a]\n")

    report = read_dataset(root, "pose")

    assert report.dataset.flip_index == ()
    assert "flip_idx" in report.warnings[0]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("", "kpt_shape is nothing"),
        ("kpt_shape: 2", "kpt_shape is 2"),
        ("kpt_shape: [2, 4]", "kpt_shape is"),
        ("kpt_shape: [2]", "kpt_shape is"),
        ("kpt_shape: [0, 3]", "kpt_shape is"),
        ("kpt_shape: [2, 3]\nflip_idx: [0]", "not an order of the 2 keypoints"),
        ("kpt_shape: [2, 3]\nflip_idx: [0, 2]", "not an order"),
        ("kpt_shape: [2, 3]\nflip_idx: [0, x]", "not an order"),
        ("kpt_shape: [3, 3]\nflip_idx: [1, 2, 0]", "applied twice"),
    ],
)
def test_a_faulty_keypoint_description_is_refused(lines: str, words: str, tmp_path: Path, refusal: Refusal) -> None:
    root = write_keypoint_dataset(tmp_path / "set")
    describe(root, f"{lines}\nnames: [a]\n")

    assert words in refusal(root, "pose")


def test_a_label_without_its_picture_is_refused(root: Path, refusal: Refusal) -> None:
    (root / "train/labels/lost.txt").write_text("0 .5 .5 .2 .2\n")

    assert "train/labels/lost.txt: no picture of this name" in refusal(root)


def test_a_label_that_differs_in_letter_case_only_is_refused_and_says_from_what(root: Path, refusal: Refusal) -> None:
    labels = root / "train/labels"
    (labels / "train-0000.txt").rename(labels / "TRAIN-0000.txt")

    assert "(there is train-0000.png)" in refusal(root)


def test_a_label_file_in_capitals_is_refused_because_frameworks_would_not_see_it(root: Path, refusal: Refusal) -> None:
    labels = root / "train/labels"
    (labels / "train-0000.txt").rename(labels / "train-0000.TXT")

    assert "train-0000.TXT: frameworks look for" in refusal(root)


def test_two_pictures_of_one_name_are_refused(root: Path, refusal: Refusal) -> None:
    Image.new("RGB", (12, 12)).save(root / "train/images/train-0000.jpg")

    assert "train-0000.png: same name as train-0000.jpg" in refusal(root)


def test_files_that_are_no_pictures_are_ignored_and_said(root: Path) -> None:
    (root / "train/images/film.mp4").write_bytes(b"x")
    (root / "train/images/.DS_Store").write_bytes(b"x")

    report = read_dataset(root, "detect")

    assert report.dataset.splits["train"].num_images == 6
    assert "train/images/film.mp4" in report.warnings[0]
    assert "DS_Store" not in report.warnings[0]


def test_a_class_without_an_object_is_said(root: Path) -> None:
    describe(root, "names: [a, b, ghost]\n")

    assert read_dataset(root, "detect").warnings == ("No object in train of: ghost.",)


def test_a_training_split_without_any_object_is_refused(root: Path, refusal: Refusal) -> None:
    shutil.rmtree(root / "train/labels")

    assert "none of the 6 pictures has an object" in refusal(root)


def test_an_empty_images_folder_is_refused(root: Path, refusal: Refusal) -> None:
    shutil.rmtree(root / "train")
    (root / "train/images").mkdir(parents=True)

    assert "train/images: no picture in this folder" in refusal(root)


@pytest.mark.parametrize(("folder", "split"), [("train", "train"), ("valid", "val")])
def test_a_missing_split_is_refused_and_says_how_to_make_one(
    folder: str, split: str, root: Path, refusal: Refusal
) -> None:
    shutil.rmtree(root / folder)

    message = refusal(root)

    assert f"has no {split} split" in message
    assert f"Put pictures into {folder}/images" in message


def test_validation_on_the_training_pictures_is_said(root: Path) -> None:
    describe(root, "train: train/images\nval: train/images\nnames: [a, b]\n")

    assert "training pictures" in read_dataset(root, "detect").warnings[0]
