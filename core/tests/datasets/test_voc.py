"""Pascal VOC: XML and masks from strangers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from eagleray.contract import EaglerayError
from eagleray.datasets import detect_format, open_dataset, read_dataset, validate

Refusal = Callable[..., str]
OBJECT = "<object><name>cat</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>5</xmax><ymax>7.5</ymax></bndbox></object>"


def xml(objects: str = OBJECT, size: str = "<size><width>12</width><height>10</height></size>") -> str:
    return f"<annotation><filename>a.png</filename>{size}{objects}</annotation>"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    for name, split in (("a", "train"), ("b", "val")):
        Image.new("RGB", (12, 10), (0, 0, len(split))).save(tmp_path / f"JPEGImages/{name}.png")
        (tmp_path / f"Annotations/{name}.xml").write_text(xml())
        (tmp_path / f"ImageSets/Main/{split}.txt").write_text(f"{name}\n")
    return tmp_path


def save(root: Path, text: str | bytes) -> None:
    (root / "Annotations/a.xml").write_bytes(text if isinstance(text, bytes) else text.encode())


def test_corners_are_taken_as_they_are_written(root: Path) -> None:
    source, _ = open_dataset(root, None)
    (record,) = source.records("train")

    assert detect_format(root) == "voc"
    assert source.info.classes == ("cat",)
    assert (record.name, record.width, record.height) == ("a.png", 12, 10)
    assert record.annotations[0].box == (1, 2, 5, 7.5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (xml(OBJECT.replace("<xmin>1", "<xmin>x")), "`xmin` is 'x', not a number"),
        (xml(OBJECT.replace("<xmin>1", "<xmin>nan")), "`xmin` is nan"),
        (xml(OBJECT.replace("<xmin>1", "<xmin>1e999")), "`xmin` is inf"),
        (xml(OBJECT.replace("<xmin>1", "<xmin>1_0")), "`xmin` is nan"),
        (xml(OBJECT.replace("<xmin>1</xmin>", "")), "`xmin` is ''"),
        (xml(OBJECT.replace("<xmin>1", "<xmin>6")), "has no area"),
        (xml(OBJECT.replace("<xmax>5", "<xmax>50")), "ends 38 pixels outside"),
        (xml(OBJECT.replace("bndbox", "box")), "without `bndbox`"),
        (xml(OBJECT.replace("cat", "")), "the class '' is not one"),
        (xml(size="<size><width>99</width><height>10</height></size>"), "says 99 x 10 pixels, the picture has 12 x 10"),
        ("<html/>", "holds `html`, not `annotation`"),
        ("", "not XML"),
        ("<annotation>", "not XML"),
        (b"\xff\xfe\x00", "not XML"),
        ("<?xml version='1.0' encoding='nonsense'?><annotation/>", "not XML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>', "has DTDForbidden"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>', "has DTDForbidden"),
    ],
)
def test_a_faulty_file_is_refused_by_name(text: str | bytes, words: str, root: Path, refusal: Refusal) -> None:
    save(root, text)

    message = refusal(root, "detect")

    assert words in message
    assert "Annotations/a.xml" in message


def test_deep_nesting_is_no_crash(root: Path, refusal: Refusal) -> None:
    save(root, "<annotation>" + "<a>" * 50_000 + "</a>" * 50_000 + "</annotation>")

    assert "none of the 1 pictures has an object" in refusal(root, "detect")


def test_a_name_without_its_picture_and_a_name_that_leads_out_are_refused(root: Path, refusal: Refusal) -> None:
    (root / "ImageSets/Main/train.txt").write_text("a\nlost\n../../etc/passwd\n")

    message = refusal(root, "detect")

    assert "Annotations/lost.xml: no picture of this name" in message
    assert "ImageSets/Main/train.txt:3: '../../etc/passwd' leads out" in message


def test_a_list_of_one_class_with_its_marks_is_read(root: Path) -> None:
    (root / "ImageSets/Main/train.txt").write_text("a  1\n")

    assert read_dataset(root, "detect").dataset.splits["train"].num_images == 1


def test_difficult_objects_are_marked_to_be_ignored(root: Path) -> None:
    save(root, xml(OBJECT.replace("<bndbox>", "<difficult>1</difficult><bndbox>")))

    (record,) = open_dataset(root, None)[0].records("train")

    assert record.annotations[0].ignore


def test_files_beside_the_pictures_are_read(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        (tmp_path / split).mkdir()
        Image.new("RGB", (12, 10)).save(tmp_path / split / "a.png")
        (tmp_path / split / "a.xml").write_text(xml())

    report = read_dataset(tmp_path, "detect")

    assert report.dataset.format == "voc"
    assert report.dataset.num_annotations == 2


def test_a_label_map_gives_the_order_and_classes_without_an_object(root: Path) -> None:
    (root / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\nzebra:1,2,3::\na:b:3,2,1::\ncat:::\n"
    )

    assert read_dataset(root, "detect").dataset.classes == ("zebra", "a:b", "cat")


@pytest.fixture
def masked(root: Path) -> Path:
    for kind in ("SegmentationClass", "SegmentationObject"):
        (root / kind).mkdir()
    (root / "labelmap.txt").write_text("cat:::\ndog:::\n")
    for name in ("a", "b"):
        put(root, "SegmentationClass", name, [[0, 1, 1], [2, 2, 255]])
        put(root, "SegmentationObject", name, [[0, 1, 2], [3, 3, 255]])
    return root


def put(root: Path, kind: str, name: str, numbers: Any, scale: int = 4) -> None:
    pixels = np.kron(np.array(numbers, np.uint8), np.ones((5, scale), np.uint8))
    Image.fromarray(pixels).save(root / kind / f"{name}.png")


def test_every_object_number_is_one_annotation_with_its_class(masked: Path) -> None:
    source, findings = open_dataset(masked, "segment")
    (record,) = source.records("train")

    findings.raise_faults()
    assert [(found.class_id, found.box) for found in record.annotations] == [
        (0, (4, 0, 8, 5)),
        (0, (8, 0, 12, 5)),
        (1, (0, 5, 8, 10)),
    ]


def test_class_masks_alone_are_one_annotation_a_class(masked: Path) -> None:
    for path in (masked / "SegmentationObject").iterdir():
        path.unlink()

    (record,) = open_dataset(masked, "segment")[0].records("train")

    assert [found.class_id for found in record.annotations] == [0, 1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda root: put(root, "SegmentationClass", "a", [[0, 9, 1], [2, 2, 255]]), "class number 9, but there are 2"),
        (lambda root: put(root, "SegmentationClass", "a", [[0, 1, 1], [2, 2, 255]], 5), "a mask of 15 x 10"),
        (lambda root: put(root, "SegmentationClass", "a", [[0, 0, 0], [0, 0, 0]]), "object 1 has no class"),
        (lambda root: (root / "SegmentationClass/a.png").write_bytes(b"x"), "a mask that cannot be read"),
        (lambda root: (root / "SegmentationClass/a.png").unlink(), "objects without classes"),
        (lambda root: Image.new("RGB", (12, 10)).save(root / "SegmentationClass/a.png"), "a mask of the mode RGB"),
    ],
)
def test_a_faulty_mask_is_refused(change: Callable[[Path], Any], words: str, masked: Path, refusal: Refusal) -> None:
    change(masked)

    assert words in refusal(masked, "segment")


def test_segmentation_without_masks_is_refused_with_the_task_that_fits(root: Path, refusal: Refusal) -> None:
    assert "--task object-detection" in refusal(root, "segment", "voc")


def test_masks_without_a_label_map_have_the_classes_of_the_xml_files(masked: Path) -> None:
    (masked / "labelmap.txt").unlink()
    save(masked, xml(OBJECT + OBJECT.replace("cat", "bird")))

    assert open_dataset(masked, "segment")[0].info.classes == ("bird", "cat")


def test_masks_of_more_classes_than_the_xml_files_have_are_numbered(masked: Path) -> None:
    (masked / "labelmap.txt").unlink()

    assert open_dataset(masked, "segment")[0].info.classes == ("class-1", "class-2")


TEXTS = st.text("<>/&;!abx019.- \n\"'=?", max_size=60)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.binary(max_size=80), TEXTS.map(str.encode), TEXTS.map(lambda text: xml(text).encode())))
def test_any_bytes_give_a_report_or_our_own_error(content: bytes, root: Path) -> None:
    save(root, content)
    try:
        validate(root, "detect", "voc")
    except EaglerayError:
        pass
