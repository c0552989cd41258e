"""Pictures are decoded before anything starts; none can hurt the reader."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from eagleray.contract import DatasetError
from eagleray.datasets import read_dataset
from eagleray.testing.data import write_classification_dataset, write_detection_dataset


def noise(side: int = 64) -> Image.Image:
    return Image.effect_noise((side, side), 80).convert("RGB")


def refusal(root: Path, task: str = "detect") -> str:
    with pytest.raises(DatasetError) as caught:
        read_dataset(root, task)
    return str(caught.value)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_detection_dataset(tmp_path)


@pytest.mark.parametrize("kind", ["jpg", "png", "bmp", "webp", "tif"])
def test_a_truncated_picture_is_refused(kind: str, root: Path) -> None:
    path = root / f"train/images/cut.{kind}"
    noise().save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    assert f"train/images/cut.{kind}: not a readable picture" in refusal(root)


def test_a_flipped_bit_in_a_png_is_refused(root: Path) -> None:
    path = root / "train/images/flip.png"
    noise().save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)

    assert "flip.png: not a readable picture" in refusal(root)


def test_a_png_whose_pixels_decode_but_whose_checksum_is_wrong_is_refused(root: Path) -> None:
    path = root / "train/images/sum.png"
    noise().save(path)
    content = bytearray(path.read_bytes())
    content[-13] ^= 1  # the last byte before the twelve of IEND
    path.write_bytes(content)

    assert "sum.png: not a readable picture" in refusal(root)


def test_hidden_files_and_folders_are_no_part_of_a_dataset(root: Path) -> None:
    (root / "train/images/.thumbs").mkdir()
    noise().save(root / "train/images/.thumbs/small.png")
    (root / "train/images/._train-0000.png").write_bytes(b"resource fork")

    report = read_dataset(root, "detect")

    assert report.dataset.num_images == 8
    assert report.warnings == ()


@pytest.mark.parametrize("content", [b"", b"not a picture", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_a_file_that_is_no_picture_is_refused(content: bytes, root: Path) -> None:
    (root / "train/images/fake.jpg").write_bytes(content)

    assert "train/images/fake.jpg: " in refusal(root)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_001, 13_000, 50_000])
def test_a_decompression_bomb_is_refused_by_a_sentence_and_never_decoded(side: int, root: Path) -> None:
    (root / "train/images/bomb.png").write_bytes(png_header(side, side))

    assert "more than 100,000,000" in refusal(root)


def test_a_large_picture_below_the_bound_warns_nobody(root: Path) -> None:
    # Pillow itself warns from 89 million pixels; a warning would be an error here.
    Image.new("1", (9_600, 9_600)).save(root / "train/images/large.tif", compression="group4")

    assert read_dataset(root, "detect").dataset.splits["train"].num_images == 7


def test_a_classification_dataset_has_one_annotation_a_picture_and_classes_by_name(tmp_path: Path) -> None:
    report = read_dataset(write_classification_dataset(tmp_path, classes=("dog", "cat")), "classify")

    assert report.dataset.format == "imagefolder"
    assert report.dataset.classes == ("cat", "dog")
    assert report.dataset.splits["train"].images == "train"
    assert report.dataset.splits["val"].images == "valid"
    assert report.counts()["annotations"] == 8


@pytest.mark.parametrize(("split", "words"), [("train", "has no train split"), ("valid", "has no val split")])
def test_an_image_folder_without_a_split_is_refused(split: str, words: str, tmp_path: Path) -> None:
    root = write_classification_dataset(tmp_path)
    (root / split).rename(root / "elsewhere")

    assert words in refusal(root, "classify")


def test_splits_with_other_classes_are_refused(tmp_path: Path) -> None:
    root = write_classification_dataset(tmp_path)
    (root / "valid/a").rename(root / "valid/c")

    message = refusal(root, "classify")

    assert "valid/c: a class that train does not have" in message
    assert "valid/a: class missing in this split" in message


def test_a_class_without_pictures_and_a_corrupt_picture_are_refused(tmp_path: Path) -> None:
    root = write_classification_dataset(tmp_path)
    for path in (root / "train/a").iterdir():
        path.unlink()
    (root / "train/b/fake.jpg").write_bytes(b"x")

    message = refusal(root, "classify")

    assert "train/a: no picture of this class" in message
    assert "train/b/fake.jpg: not a readable picture" in message


def test_pictures_outside_the_class_folders_are_said(tmp_path: Path) -> None:
    root = write_classification_dataset(tmp_path)
    noise().save(root / "train/loose.png")

    report = read_dataset(root, "classify")

    assert "loose.png" in report.warnings[0]
    assert report.dataset.num_images == 8


def test_a_detection_dataset_is_not_read_as_two_classes(root: Path) -> None:
    assert "--task object-detection" in refusal(root, "classify")


def test_an_image_folder_without_classes_is_refused(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        (tmp_path / split).mkdir()

    assert "has no class folders" in refusal(tmp_path, "classify")
