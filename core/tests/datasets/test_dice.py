"""DICE datasets: what is accepted, what is counted, and what is refused with which words."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from eagleray.contract import DatasetError, UnknownNameError
from eagleray.datasets import read_dataset
from eagleray.testing.data import (
    write_classification_dataset,
    write_detection_dataset,
    write_keypoint_dataset,
    write_segmentation_dataset,
)

Write = Callable[..., Path]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_detection_dataset(tmp_path / "set")


def describe(root: Path, text: str) -> None:
    (root / "data.yaml").write_text(text, encoding="utf-8")


def label(root: Path, text: str) -> None:
    (root / "train/labels/train-0000.txt").write_text(text, encoding="utf-8")


def refusal(root: Path, task: str = "object-detection") -> str:
    with pytest.raises(DatasetError) as caught:
        read_dataset(root, task)
    assert caught.value.hint
    return str(caught.value)


@pytest.mark.parametrize(
    ("write", "task"),
    [
        (write_detection_dataset, "object-detection"),
        (write_detection_dataset, "zero-shot-object-detection"),
        (write_segmentation_dataset, "segment"),
        (write_keypoint_dataset, "pose"),
        (write_classification_dataset, "classify"),
    ],
)
def test_a_written_dataset_of_each_task_is_read_without_a_warning(write: Write, task: str, tmp_path: Path) -> None:
    report = read_dataset(write(tmp_path / "set", images=12), task)

    assert report.warnings == ()
    assert report.dataset.num_images == 12
    assert report.dataset.num_annotations >= 12


def test_writing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_detection_dataset(tmp_path / name, seed=3) for name in "ab")

    def content(root: Path) -> dict[str, bytes]:
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    assert content(first) == content(second)


def test_the_counts_are_plain_data_with_totals_and_splits(root: Path) -> None:
    label(root, "0 .5 .5 .2 .2\n1 .4 .4 .2 .2\n")
    (root / "train/labels/train-0001.txt").unlink()

    counts = read_dataset(root, "detect").counts()

    train, val = (counts["splits"][split] for split in ("train", "val"))  # type: ignore[index]
    assert train["images"] == 6
    assert train["backgrounds"] == 1
    assert counts["images"] == 8
    assert counts["annotations"] == train["annotations"] + val["annotations"]
    assert counts["backgrounds"] == 1


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


def test_labels_with_a_mark_at_the_front_and_windows_line_ends_are_read(root: Path) -> None:
    (root / "train/labels/train-0000.txt").write_bytes(b"\xef\xbb\xbf0 .5 .5 .2 .2\r\n\r\n1 .4 .4 .2 .2\r\n")
    (root / "data.yaml").write_bytes(b"\xef\xbb\xbf" + (root / "data.yaml").read_bytes().replace(b"\n", b"\r\n"))
    before = read_dataset(root, "detect").dataset.splits["train"].num_annotations

    label(root, "0 .5 .5 .2 .2\n")

    assert read_dataset(root, "detect").dataset.splits["train"].num_annotations == before - 1


def test_backgrounds_are_counted_and_said(root: Path) -> None:
    label(root, "\n")
    (root / "train/labels/train-0001.txt").unlink()

    report = read_dataset(root, "detect")

    assert report.dataset.splits["train"].num_backgrounds == 2
    assert "train: 2 of 6 pictures" in report.warnings[0]
    assert "(1 without a label file, 1 with an empty one)" in report.warnings[0]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("0 .5 .5 .2", "4 columns instead of 5"),
        ("0 .1 .1 .5 .1 .5 .5", "image-segmentation"),
        ("0 .5 .5 .2 x", "could not convert"),
        ("0 .5 .5 .2 nan", "not a finite number"),
        ("0 .5 .5 inf .2", "not a finite number"),
        ("nan .5 .5 .2 .2", "not a finite number"),
        ("0 1_0 .5 .2 .2", "not a finite number"),
        ("0 1.5 .5 .2 .2", "1.5 is outside 0..1"),
        ("0 -.1 .5 .2 .2", "-0.1 is outside 0..1"),
        ("0 .5 .5 0 .2", "no area"),
        ("2 .5 .5 .2 .2", "class 2 is not in 0..1"),
        ("-1 .5 .5 .2 .2", "class -1 is not in 0..1"),
        ("0.5 .5 .5 .2 .2", "class 0.5 is not in 0..1"),
    ],
)
def test_a_faulty_row_is_refused_with_file_and_line(row: str, words: str, root: Path) -> None:
    label(root, f"0 .5 .5 .2 .2\n{row}\n")

    message = refusal(root)

    assert "train/labels/train-0000.txt:2: " in message
    assert words in message


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("0 .5 .5 .2 .2", "a box instead of an outline"),
        ("0 .1 .1 .5 .1 .5", "not three or more pairs"),
        ("0 .1 .1 .5 .5 .9 .9", "no area"),
        ("0 .1 .1 .5 .1 .5 1.1", "1.1 is outside"),
    ],
)
def test_a_faulty_outline_is_refused(row: str, words: str, tmp_path: Path) -> None:
    root = write_segmentation_dataset(tmp_path / "set")
    label(root, row)

    assert words in refusal(root, "segment")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("0 .5 .5 .2 .2", "5 columns instead of 11"),
        ("0 .5 .5 .2 .2 .1 .1 3 .1 .1 0", "visibility is not 0, 1 or 2"),
        ("0 .5 .5 .2 .2 .1 1.1 2 .1 .1 0", "1.1 is outside"),
        ("0 .5 .5 .2 0 .1 .1 2 .1 .1 0", "no area"),
    ],
)
def test_faulty_keypoints_are_refused(row: str, words: str, tmp_path: Path) -> None:
    root = write_keypoint_dataset(tmp_path / "set")
    label(root, row)

    assert words in refusal(root, "pose")


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
def test_a_faulty_keypoint_description_is_refused(lines: str, words: str, tmp_path: Path) -> None:
    root = write_keypoint_dataset(tmp_path / "set")
    describe(root, f"{lines}\nnames: [a]\n")

    assert words in refusal(root, "pose")


def test_only_ten_faults_are_named_and_the_rest_counted(root: Path) -> None:
    label(root, "9 .5 .5 .2 .2\n" * 25)

    message = refusal(root)

    assert "has 25 faults" in message
    assert message.count("class 9 is not") == 10
    assert "and 15 more" in message


def test_a_label_without_its_picture_is_refused(root: Path) -> None:
    (root / "train/labels/lost.txt").write_text("0 .5 .5 .2 .2\n")

    assert "train/labels/lost.txt: no picture of this name" in refusal(root)


def test_a_label_that_differs_in_letter_case_only_is_refused_and_says_from_what(root: Path) -> None:
    labels = root / "train/labels"
    (labels / "train-0000.txt").rename(labels / "TRAIN-0000.txt")

    assert "(there is train-0000.png)" in refusal(root)


def test_a_label_file_in_capitals_is_refused_because_frameworks_would_not_see_it(root: Path) -> None:
    labels = root / "train/labels"
    (labels / "train-0000.txt").rename(labels / "train-0000.TXT")

    assert "train-0000.TXT: frameworks look for" in refusal(root)


def test_two_pictures_of_one_name_are_refused(root: Path) -> None:
    Image.new("RGB", (12, 12)).save(root / "train/images/train-0000.jpg")

    assert "train-0000.png: same name as train-0000.jpg" in refusal(root)


def test_repeated_rows_are_said(root: Path) -> None:
    label(root, "0 .5 .5 .2 .2\n0 .5 .5 .2 .2\n1 .5 .5 .2 .2\n")

    assert "train: 1 label rows repeat" in read_dataset(root, "detect").warnings[0]


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


def test_a_training_split_without_any_object_is_refused(root: Path) -> None:
    shutil.rmtree(root / "train/labels")

    assert "none of the 6 pictures has an object" in refusal(root)


def test_an_empty_images_folder_is_refused(root: Path) -> None:
    shutil.rmtree(root / "train")
    (root / "train/images").mkdir(parents=True)

    assert "train/images: no picture in this folder" in refusal(root)


@pytest.mark.parametrize(("folder", "split"), [("train", "train"), ("valid", "val")])
def test_a_missing_split_is_refused_and_says_how_to_make_one(folder: str, split: str, root: Path) -> None:
    shutil.rmtree(root / folder)

    message = refusal(root)

    assert f"has no {split} split" in message
    assert f"Put pictures into {folder}/images" in message


def test_a_missing_folder_an_empty_folder_and_a_missing_description_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()

    assert "There is no dataset at" in refusal(tmp_path / "absent")
    assert "is empty" in refusal(tmp_path / "empty")
    assert "data.yaml is missing" in refusal(tmp_path / "other")
    assert "is not a folder" in refusal(tmp_path / "other/file")


def test_validation_on_the_training_pictures_is_said(root: Path) -> None:
    describe(root, "train: train/images\nval: train/images\nnames: [a, b]\n")

    assert "training pictures" in read_dataset(root, "detect").warnings[0]


def test_a_terminal_is_not_obeyed_through_a_file_name(root: Path) -> None:
    (root / "train/labels/\x1b[31mred.txt").write_text("0 .5 .5 .2 .2\n")

    assert "\x1b" not in refusal(root)


def test_an_unknown_format_names_the_valid_ones(root: Path) -> None:
    with pytest.raises(UnknownNameError, match="dice"):
        read_dataset(root, "detect", "dise")


def test_a_format_that_does_not_serve_the_task_is_refused(root: Path) -> None:
    with pytest.raises(DatasetError, match="--dataset-format dice"):
        read_dataset(root, "detect", "imagefolder")


def test_a_task_without_any_format_is_refused(root: Path) -> None:
    assert "mask-generation" in refusal(root, "mask-generation")
