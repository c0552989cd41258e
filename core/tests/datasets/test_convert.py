"""Any format to any other: counts stay, geometry stays, and what would be lost is refused."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from eagleray.contract import DatasetError, UnknownNameError
from eagleray.datasets import FORMATS, convert, open_dataset, read_dataset, validate, write
from eagleray.datasets.masks import encoded, pixels_of, rle_of
from eagleray.datasets.records import Annotation, ImageRecord
from eagleray.testing.data import (
    write_classification_dataset,
    write_detection_dataset,
    write_keypoint_dataset,
    write_segmentation_dataset,
)

WRITERS: dict[str, Callable[..., Path]] = {
    "object-detection": write_detection_dataset,
    "image-segmentation": write_segmentation_dataset,
    "keypoint-detection": write_keypoint_dataset,
    "image-classification": write_classification_dataset,
}
PAIRS = [
    pytest.param(task, first, second, id=f"{task}: {first} to {second}")
    for task in WRITERS
    for first, second in itertools.product([form.name for form in FORMATS.values() if task in form.writes], repeat=2)
]
TWICE = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize(("task", "first", "second"), PAIRS)
def test_counts_stay_through_every_pair_of_formats(task: str, first: str, second: str, tmp_path: Path) -> None:
    source = WRITERS[task](tmp_path / "source")
    before = read_dataset(source, task).counts()

    convert(source, first, tmp_path / "first", task=task, allow_loss=True)
    report = convert(tmp_path / "first", second, tmp_path / "second", task=task, source_format=first, allow_loss=True)

    assert read_dataset(tmp_path / "second", task, second).counts() == before
    assert (report.images, report.annotations) == (before["images"], before["annotations"])
    assert validate(tmp_path / "second", task, second).errors == 0


BOX_FORMATS = [form.name for form in FORMATS.values() if "object-detection" in form.writes]


@TWICE
@given(chain=st.lists(st.sampled_from(BOX_FORMATS), min_size=2, max_size=4), objects=st.randoms(use_true_random=False))
def test_32_pictures_and_209_annotations_stay_so_through_any_chain(
    chain: list[str], objects: Any, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path, ignore_errors=True)
    counts = [0, 0, *([7] * 29), 209 - 7 * 29]
    objects.shuffle(counts)
    source = write_reference(tmp_path / "0", counts)

    for number, form in enumerate(chain, start=1):
        convert(source, form, tmp_path / str(number))
        source = tmp_path / str(number)

    train = read_dataset(source, "detect", chain[-1]).dataset.splits["train"]
    assert (train.num_images, train.num_annotations, train.num_backgrounds) == (32, 209, 2)


def write_reference(root: Path, counts: list[int]) -> Path:
    for split in ("train", "valid"):
        (root / split / "images").mkdir(parents=True)
        (root / split / "labels").mkdir()
    for number, count in enumerate(counts):
        Image.new("RGB", (12, 12), (number, 0, 0)).save(root / f"train/images/IMG {number}.a.png")
        rows = "".join(f"0 .5 .5 .1 0.{row + 1}\n" for row in range(count))
        (root / f"train/labels/IMG {number}.a.txt").write_text(rows)
    Image.new("RGB", (12, 12)).save(root / "valid/images/v.png")
    (root / "valid/labels/v.txt").write_text("0 .5 .5 .1 .1\n")
    (root / "data.yaml").write_text("names: [a]\n")
    return root


SIZES = st.tuples(st.integers(8, 90), st.integers(8, 90))


@st.composite
def boxes(draw: st.DrawFn, size: tuple[int, int]) -> tuple[float, float, float, float]:
    width, height = size
    x1, y1 = draw(st.floats(0, width - 2)), draw(st.floats(0, height - 2))
    return x1, y1, x1 + draw(st.floats(1, width - x1)), y1 + draw(st.floats(1, height - y1))


@st.composite
def pictures(draw: st.DrawFn, annotation: Callable[[Any, tuple[int, int]], Any]) -> list[Any]:
    found = []
    for number, split in enumerate(["train", "train", "val"]):
        size = draw(SIZES)
        annotations = draw(st.lists(annotation(draw, size), min_size=1, max_size=4))
        found.append((f"p{number}.png", split, size, annotations))
    return found


def boxed(draw: st.DrawFn, size: tuple[int, int]) -> Any:
    return st.builds(Annotation, st.integers(0, 1), boxes(size))


@pytest.mark.parametrize("form", BOX_FORMATS)
@TWICE
@given(data=st.data())
def test_boxes_stay_where_they_are(form: str, data: st.DataObject, make: Any, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path, ignore_errors=True)
    source = make("object-detection", data.draw(pictures(boxed)))

    write(source, form, tmp_path / "copy")

    for before, after in both(source.held, tmp_path / "copy", "object-detection", form):
        assert [each.class_id for each in after.annotations] == [each.class_id for each in before.annotations]
        for old, new in zip(before.annotations, after.annotations, strict=True):
            assert new.box == pytest.approx(old.box, abs=1e-4)


def both(held: list[ImageRecord], path: Path, task: str, form: str) -> list[tuple[ImageRecord, ImageRecord]]:
    source, findings = open_dataset(path, task, form)
    after = {(record.split, Path(record.name).stem): record for s in source.info.splits for record in source.records(s)}
    findings.raise_faults()
    assert len(after) == len(held)
    return [(record, after[record.split, Path(record.name).stem]) for record in held]


def outlined(draw: st.DrawFn, size: tuple[int, int]) -> Any:
    def around(class_id: int, box: tuple[float, float, float, float]) -> Annotation:
        x1, y1, x2, y2 = box
        return Annotation(class_id, box, ((x1, y1, x2, y1, x2, y2, (x1 + x2) / 2, y2, x1, y2),))

    return st.builds(around, st.integers(0, 1), boxes(size))


@pytest.mark.parametrize("form", ["dice", "yolo", "coco"])
@TWICE
@given(data=st.data())
def test_outlines_stay_where_they_are(form: str, data: st.DataObject, make: Any, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path, ignore_errors=True)
    source = make("image-segmentation", data.draw(pictures(outlined)))

    write(source, form, tmp_path / "copy")

    for before, after in both(source.held, tmp_path / "copy", "image-segmentation", form):
        for old, new in zip(before.annotations, after.annotations, strict=True):
            assert new.polygons[0] == pytest.approx(old.polygons[0], abs=1e-4)


def posed(draw: st.DrawFn, size: tuple[int, int]) -> Any:
    point = st.tuples(st.floats(1, size[0]), st.floats(1, size[1]), st.sampled_from([1.0, 2.0]))
    points = st.tuples(point, point, st.one_of(point, st.just((0.0, 0.0, 0.0))))
    return st.builds(
        lambda class_id, box, found: Annotation(class_id, box, keypoints=found), st.just(0), boxes(size), points
    )


@pytest.mark.parametrize("form", ["dice", "yolo", "coco"])
@TWICE
@given(data=st.data())
def test_keypoints_their_names_and_their_mirror_stay(form: str, data: st.DataObject, make: Any, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path, ignore_errors=True)
    names = ("nose", "left eye", "right eye")
    keypoints = {"keypoints": (3, 3), "keypoint_names": names, "flip_index": (0, 2, 1)}
    source = make("keypoint-detection", data.draw(pictures(posed)), classes=("person",), **keypoints)

    write(source, form, tmp_path / "copy")

    info = open_dataset(tmp_path / "copy", None, form)[0].info
    assert (info.keypoints, info.keypoint_names, info.flip_index) == ((3, 3), names, (0, 2, 1))
    for before, after in both(source.held, tmp_path / "copy", "keypoint-detection", form):
        for old, new in zip(before.annotations, after.annotations, strict=True):
            for then, now in zip(old.keypoints, new.keypoints, strict=True):
                assert now == pytest.approx(then, abs=1e-4)


def test_masks_of_voc_are_the_same_pixels_after_coco_and_back(make: Any, tmp_path: Path) -> None:
    ring = ((4.0, 4.0, 20.0, 4.0, 20.0, 20.0, 4.0, 20.0),)
    other = ((24.0, 2.0, 30.0, 2.0, 30.0, 12.0, 24.0, 12.0),)
    found = [Annotation(0, (4, 4, 20, 20), ring), Annotation(1, (24, 2, 30, 12), other)]
    source = make("image-segmentation", [("a.png", "train", (32, 24), found), ("b.png", "val", (32, 24), found)])
    write(source, "voc", tmp_path / "voc", allow_loss=True)

    convert(tmp_path / "voc", "coco", tmp_path / "coco", task="segment")
    convert(tmp_path / "coco", "dice", tmp_path / "dice")
    convert(tmp_path / "dice", "voc", tmp_path / "again", allow_loss=True)

    for kind in ("SegmentationClass", "SegmentationObject"):
        for name in ("a.png", "b.png"):
            then, now = (np.array(Image.open(tmp_path / place / kind / name)) for place in ("voc", "again"))
            assert (then == now).all()


def test_a_mask_with_a_hole_and_two_parts_is_one_row_that_covers_the_same_pixels(make: Any, tmp_path: Path) -> None:
    pixels = np.zeros((20, 30), np.uint8)
    pixels[2:12, 2:12], pixels[5:8, 5:8], pixels[14:18, 20:28] = 1, 0, 1
    found = [Annotation(0, (2, 2, 28, 18), rle=encoded(pixels))]
    source = make("image-segmentation", [("a.png", "train", (30, 20), found), ("b.png", "val", (30, 20), found)])

    write(source, "dice", tmp_path / "dice")

    (row,) = (tmp_path / "dice/train/labels/a.txt").read_text().splitlines()
    (after,) = next(iter(open_dataset(tmp_path / "dice", "segment")[0].records("train"))).annotations
    assert len(row.split()) % 2 == 1
    assert (filled(after.polygons[0], 30, 20) == pixels).all()
    assert pixels_of(rle_of(found[0], 30, 20)).sum() == pixels.sum()


def filled(outline: tuple[float, ...], width: int, height: int) -> Any:
    """By the even-odd rule at the middle of each pixel, as frameworks fill label rows."""
    points = list(zip(outline[::2], outline[1::2], strict=True))
    inside = np.zeros((height, width), np.uint8)
    for y, x in itertools.product(range(height), range(width)):
        crossings = 0
        for (x1, y1), (x2, y2) in zip(points, [*points[1:], points[0]], strict=True):
            if (y1 > y + 0.5) != (y2 > y + 0.5) and x + 0.5 < x1 + (y + 0.5 - y1) * (x2 - x1) / (y2 - y1):
                crossings += 1
        inside[y, x] = crossings % 2
    return inside


def test_masks_become_boxes_only_when_that_is_asked_for(tmp_path: Path) -> None:
    source = write_segmentation_dataset(tmp_path / "source")

    with pytest.raises(DatasetError, match="masks become boxes") as caught:
        convert(source, "coco", tmp_path / "copy", task="object-detection")

    assert "--allow-loss" in caught.value.hint
    assert not (tmp_path / "copy").exists()
    report = convert(source, "coco", tmp_path / "copy", task="object-detection", allow_loss=True)
    assert report.lost == ("masks become boxes",)
    assert read_dataset(tmp_path / "copy", "detect").dataset.num_annotations == report.annotations


def test_keypoints_become_boxes_and_leave_no_keypoints_in_the_description(tmp_path: Path) -> None:
    source = write_keypoint_dataset(tmp_path / "source")

    convert(source, "yolo", tmp_path / "copy", task="detect", allow_loss=True)

    assert "kpt_shape" not in (tmp_path / "copy/data.yaml").read_text()
    assert read_dataset(tmp_path / "copy", "detect").dataset.format == "yolo"


def test_boxes_cannot_become_masks(tmp_path: Path) -> None:
    source = write_detection_dataset(tmp_path / "source")

    with pytest.raises(DatasetError, match="a box instead of an outline"):
        convert(source, "coco", tmp_path / "copy", task="segment", allow_loss=True)


def test_a_format_that_does_not_hold_the_task_is_refused_with_those_that_do(tmp_path: Path) -> None:
    source = write_keypoint_dataset(tmp_path / "source")

    with pytest.raises(DatasetError, match="voc does not hold keypoint-detection") as caught:
        convert(source, "voc", tmp_path / "copy")

    assert "dice, yolo, coco" in caught.value.hint


def test_an_unknown_format_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="coca"):
        convert(write_detection_dataset(tmp_path / "source"), "coca", tmp_path / "copy")


def test_crowds_are_left_out_and_counted_only_when_that_is_asked_for(make: Any, tmp_path: Path) -> None:
    found = [Annotation(0, (1, 1, 5, 5)), Annotation(0, (2, 2, 9, 9), ignore=True)]
    source = make("object-detection", [("a.png", "train", (12, 12), found), ("b.png", "val", (12, 12), found[:1])])
    write(source, "coco", tmp_path / "coco")

    with pytest.raises(DatasetError, match="1 annotations marked as crowd"):
        convert(tmp_path / "coco", "yolo", tmp_path / "copy")

    report = convert(tmp_path / "coco", "yolo", tmp_path / "copy", allow_loss=True)
    assert (report.annotations, report.ignored) == (2, 1)
    convert(tmp_path / "coco", "voc", tmp_path / "voc")
    assert "<difficult>1" in (tmp_path / "voc/Annotations/a.xml").read_text()


def test_faulty_rows_end_a_conversion_and_nothing_is_left(tmp_path: Path) -> None:
    source = write_detection_dataset(tmp_path / "source")
    (source / "train/labels/train-0000.txt").write_text("0 .5 .5 .2 .2\n7 .5 .5 .2 .2\n")

    with pytest.raises(DatasetError, match=r"train-0000.txt:2: class 7"):
        convert(source, "coco", tmp_path / "copy")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_overlapping_outlines_go_to_voc_only_when_asked_and_never_without_a_pixel(make: Any, tmp_path: Path) -> None:
    square = ((1.0, 1.0, 9.0, 1.0, 9.0, 9.0, 1.0, 9.0),)
    found = [Annotation(0, (1, 1, 9, 9), square), Annotation(1, (1, 1, 9, 9), square)]
    source = make("image-segmentation", [("a.png", "train", (12, 12), found), ("b.png", "val", (12, 12), found[:1])])

    with pytest.raises(DatasetError, match="whole pixels"):
        write(source, "voc", tmp_path / "copy")
    with pytest.raises(DatasetError, match=r"a.png: object 1 has no pixel of its own"):
        write(source, "voc", tmp_path / "copy", allow_loss=True)


NAMES = ["yes", "1e3", "a: b", "it's", 'say "x"', "ünï 🦉", "#no", "- x", "a\\b", "{c}", "odd\x85name", "null", "~"]


@pytest.mark.parametrize("form", ["dice", "yolo", "coco"])
def test_class_names_stay_whatever_they_are(form: str, make: Any, tmp_path: Path) -> None:
    found = [Annotation(number, (1, 1, 5, 5)) for number in range(len(NAMES))]
    pictures = [(f"{split}.png", split, (12, 12), found) for split in ("train", "val")]

    write(make("object-detection", pictures, classes=tuple(NAMES)), form, tmp_path / "copy")

    assert read_dataset(tmp_path / "copy", "detect").dataset.classes == tuple(NAMES)


def test_a_report_is_text_and_json(tmp_path: Path) -> None:
    report = convert(write_detection_dataset(tmp_path / "source"), "coco", tmp_path / "copy")

    assert "dice → coco" in report.text()
    assert type(report).model_validate_json(report.model_dump_json()) == report
