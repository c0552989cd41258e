"""Validation reports name file, row, kind and fix; a mended copy is sound."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from eagleray.contract import DatasetError
from eagleray.datasets import convert, fix, read_dataset, validate
from eagleray.datasets.report import CODES, MAX_KEPT
from eagleray.testing.data import write_classification_dataset, write_detection_dataset, write_segmentation_dataset

Break = Callable[[Path], Any]


def picture(root: Path, number: int = 0, split: str = "train") -> Path:
    return root / f"{split}/images/{split}-{number:04d}.png"


def label(root: Path, text: str | bytes) -> None:
    (root / "train/labels/train-0000.txt").write_bytes(text if isinstance(text, bytes) else text.encode())


def turned(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(picture(root)) as image:
        image.convert("RGB").resize((40, 20)).save(picture(root), exif=exif)


def mislabelled(root: Path) -> None:
    with Image.open(picture(root)) as image:
        image.convert("RGB").save(picture(root), "JPEG")


FAULTS: list[tuple[Break, str, str, str]] = [
    (lambda root: picture(root).write_bytes(b""), "error", "image-unreadable", "train/images/train-0000.png"),
    (
        lambda root: picture(root).write_bytes(picture(root).read_bytes()[:90]),
        "error",
        "image-unreadable",
        "train-0000.png",
    ),
    (mislabelled, "warning", "image-mislabelled", "train/images/train-0000.png: the content is JPEG, the suffix .png"),
    (turned, "warning", "image-orientation", "train/images/train-0000.png: EXIF orientation 6"),
    (lambda root: label(root, "0 .5 .5 .2 nan\n"), "error", "not-finite", "train/labels/train-0000.txt:1: "),
    (
        lambda root: label(root, "0 .5 .5 .2 .2\n0 1.5 .5 .2 .2\n"),
        "error",
        "outside",
        "train-0000.txt:2: 1.5 is outside",
    ),
    (lambda root: label(root, "0 .5 .5 .2 0\n"), "error", "no-area", "train-0000.txt:1: the box has no area"),
    (lambda root: label(root, "5 .5 .5 .2 .2\n"), "error", "class-id", "train-0000.txt:1: class 5 is not in 0..1"),
    (lambda root: label(root, "0 .5 .5\n"), "error", "row", "train-0000.txt:1: 3 columns instead of 5"),
    (
        lambda root: label(root, b"\xef\xbb\xbf0 .5 .5 .2 .2\r\n"),
        "warning",
        "file-encoding",
        "a byte-order mark and Windows",
    ),
    (lambda root: label(root, "0 .5 .5 .2 .2\n".encode("utf-16")), "error", "file-encoding", "UTF-16, not UTF-8 text"),
    (lambda root: label(root, b"0 .5 .5 .2 .2 \xff\n"), "error", "file-encoding", "not UTF-8 text"),
    (lambda root: label(root, b"0 .5 .5 .2 .2\n" * 1_300_000), "error", "file-too-large", "larger than 16777216 bytes"),
    (lambda root: label(root, "0 .5 .5 .2 .2\n" * 2), "warning", "row-repeated", "1 label rows repeat"),
    (lambda root: picture(root).unlink(), "error", "label-orphan", "train/labels/train-0000.txt: no picture"),
    (lambda root: label(root, ""), "warning", "background", "1 of 6 pictures have no object"),
    (
        lambda root: shutil.copyfile(picture(root, 0, "valid"), picture(root)),
        "warning",
        "image-duplicate",
        "the same picture as train/images/train-0000.png of train",
    ),
    (
        lambda root: shutil.copyfile(picture(root, 1), picture(root)),
        "warning",
        "image-repeated",
        "train/images/train-0001.png: the same picture as train/images/train-0000.png",
    ),
    (
        lambda root: (root / "data.yaml").write_text("names: [a, b, c]\n"),
        "warning",
        "class-empty",
        "No object in train of: c",
    ),
    (lambda root: (root / "data.yaml").unlink(), "error", "dataset", "data.yaml is missing"),
    (lambda root: shutil.rmtree(root / "valid"), "error", "split-empty", "has no val split"),
]


@pytest.mark.parametrize(("damage", "severity", "code", "words"), FAULTS)
def test_every_kind_of_fault_is_found_with_its_place(
    damage: Break, severity: str, code: str, words: str, root: Path
) -> None:
    damage(root)

    report = validate(root, "object-detection", "dice")

    (found,) = [each for each in report.findings if each.code == code]
    assert found.severity == severity
    assert report.ok == (severity == "warning")
    assert words in f"{found.path}{f':{found.row}' if found.row else ''}: {found.message}"
    assert code in CODES
    assert words.partition(": ")[2] in report.text() or words in report.text()


def test_a_sound_dataset_has_nothing_to_say(root: Path) -> None:
    report = validate(root)

    assert (report.ok, report.findings, report.format, report.task) == (True, [], "dice", "object-detection")
    assert report.splits["train"].images == 6
    assert sum(report.class_counts.values()) == sum(split.annotations for split in report.splits.values())


def test_a_report_goes_through_json_unchanged(root: Path) -> None:
    label(root, "7 .5 .5 .2 .2\n")
    report = validate(root)

    assert type(report).model_validate_json(report.model_dump_json()) == report
    assert json.loads(report.model_dump_json())["findings"][0]["row"] == 1


def test_a_million_faults_are_counted_and_a_thousand_kept(root: Path) -> None:
    label(root, "7 .5 .5 .2 .2\n" * 5000)

    report = validate(root)

    assert report.errors == report.counts["error/class-id"] == 5000
    assert len(report.findings) == MAX_KEPT + 1
    assert f"{5001 - 50} more" in report.text()


def test_every_fault_has_a_fix(root: Path) -> None:
    label(root, "7 .5 .5 .2 .2\n0 .5 .5 0 .1\n")
    picture(root, 1).write_bytes(b"x")

    assert all(found.fix for found in validate(root).findings if found.severity == "error")


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_kind_has_a_meaning(code: str) -> None:
    severity, meaning = CODES[code]
    assert severity in ("error", "warning", "both")
    assert meaning


MENDABLE = [
    fault
    for fault in FAULTS
    if fault[2] not in {"dataset", "split-empty", "background", "class-empty", "image-repeated"}
]


@pytest.mark.parametrize(("damage", "severity", "code", "words"), MENDABLE)
def test_a_mended_copy_is_sound(
    damage: Break, severity: str, code: str, words: str, root: Path, tmp_path: Path
) -> None:
    damage(root)
    report = validate(root, "object-detection", "dice")

    fixed = fix(report, tmp_path / "mended")

    assert fixed.report.errors == 0, fixed.report.text()
    assert not [found for found in fixed.report.findings if found.code == code]
    if code not in ("file-encoding",):
        assert fixed.done
    assert read_dataset(tmp_path / "mended", "detect").dataset.num_images in (7, 8)


def test_mending_leaves_the_dataset_as_it_is(root: Path, tmp_path: Path) -> None:
    turned(root)
    label(root, "0 1.5 .5 .2 .2\n")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}

    fix(validate(root), tmp_path / "mended")

    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_a_turned_picture_is_stored_upright_and_its_labels_stay(root: Path, tmp_path: Path) -> None:
    turned(root)
    label(root, "0 .5 .5 .2 .4\n")

    fixed = fix(validate(root), tmp_path / "mended")

    with Image.open(tmp_path / "mended/train/images/train-0000.png") as image:
        assert (image.size, image.getexif().get(0x0112, 1)) == ((20, 40), 1)
    assert (tmp_path / "mended/train/labels/train-0000.txt").read_text() == "0 0.5 0.5 0.2 0.4\n"
    assert "1 pictures stored upright" in fixed.done


def test_a_box_outside_is_cut_and_one_beyond_is_left_out(root: Path, tmp_path: Path) -> None:
    label(root, "0 .9 .5 1.2 .2\n1 7 7 .1 .1\n0 .5 .5 .2 .2\n")

    fix(validate(root), tmp_path / "mended")

    rows = (tmp_path / "mended/train/labels/train-0000.txt").read_text().splitlines()
    assert rows == ["0 0.65 0.5 0.7 0.2", "0 0.5 0.5 0.2 0.2"]


def test_a_duplicate_is_taken_from_the_training_pictures(root: Path, tmp_path: Path) -> None:
    shutil.copyfile(picture(root, 0, "valid"), picture(root))

    fix(validate(root), tmp_path / "mended")

    assert not (tmp_path / "mended/train/images/train-0000.png").exists()
    assert (tmp_path / "mended/valid/images/valid-0000.png").exists()


@pytest.mark.parametrize("form", ["coco", "voc", "yolo"])
def test_other_formats_are_mended_too(form: str, root: Path, tmp_path: Path) -> None:
    convert(root, form, tmp_path / form)
    for path in (tmp_path / form).rglob("train-0001.png"):
        path.unlink()
        path.write_bytes(b"x")

    report = validate(tmp_path / form)
    fixed = fix(report, tmp_path / "mended")

    assert not report.ok
    assert fixed.report.ok
    assert fixed.report.format == form
    assert fixed.report.splits["train"].images == 5


def test_outlines_are_cut_to_their_picture(tmp_path: Path) -> None:
    root = write_segmentation_dataset(tmp_path / "set")
    label(root, "0 .5 .5 1.2 .5 1.2 .9 .5 .9\n")

    fix(validate(root, "segment"), tmp_path / "mended")

    assert (tmp_path / "mended/train/labels/train-0000.txt").read_text() == "0 0.5 0.5 1 0.5 1 0.9 0.5 0.9\n"


def test_what_cannot_be_read_at_all_is_not_mended(root: Path, tmp_path: Path) -> None:
    (root / "data.yaml").write_text("names: [")

    with pytest.raises(DatasetError):
        fix(validate(root, "detect", "dice"), tmp_path / "mended")

    assert not (tmp_path / "mended").exists()


def test_class_folders_are_validated_and_mended(tmp_path: Path) -> None:
    root = write_classification_dataset(tmp_path / "set", images=12)
    (root / "train/a/fake.jpg").write_bytes(b"x")

    report = validate(root)
    fixed = fix(report, tmp_path / "mended")

    assert report.errors == 1
    assert fixed.report.ok


def test_a_size_that_is_not_the_pictures_is_an_error_and_one_that_forgets_exif_a_warning(tmp_path: Path) -> None:
    root = write_detection_dataset(tmp_path / "set")
    turned(root)
    convert(root, "coco", tmp_path / "coco")
    path = tmp_path / "coco/annotations/instances_train.json"
    text = path.read_text()
    assert '"width": 20, "height": 40' in text

    path.write_text(text.replace('"width": 20, "height": 40', '"width": 40, "height": 20'))
    assert validate(tmp_path / "coco", "detect").counts.get("warning/image-size") == 1
    path.write_text(text.replace('"width": 20, "height": 40', '"width": 80, "height": 90'))
    assert validate(tmp_path / "coco", "detect").counts.get("error/image-size") == 1
