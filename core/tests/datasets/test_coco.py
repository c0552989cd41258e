"""COCO files from strangers: what is read, what is refused, and with which row."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from eagleray.contract import DatasetError, EaglerayError
from eagleray.datasets import detect_format, open_dataset, read_dataset, validate
from eagleray.datasets.formats import json_stream
from eagleray.datasets.masks import encoded

Refusal = Callable[..., str]
BOX = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4]}


def coco(annotations: list[Any] | None = None, **also: Any) -> dict[str, Any]:
    whole = {
        "images": [{"id": 1, "file_name": "a.png", "width": 12, "height": 12}],
        "annotations": [BOX] if annotations is None else annotations,
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    return whole | also


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two sound splits of one picture each."""
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        Image.new("RGB", (12, 12), (9, 9, len(split))).save(tmp_path / split / "a.png")
    (tmp_path / "annotations").mkdir()
    save(tmp_path, coco(), "val")
    save(tmp_path, coco())
    return tmp_path


def save(root: Path, content: Any, split: str = "train") -> Path:
    path = root / f"annotations/instances_{split}.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def train(root: Path, task: str | None = None) -> Any:
    source, findings = open_dataset(root, task, "coco")
    (record,) = source.records("train")
    findings.raise_faults()
    return record


def test_boxes_are_read_as_corners_and_categories_count_from_zero(root: Path) -> None:
    save(root, coco([BOX | {"category_id": 2, "bbox": [1, 2.5, 4, 6]}]))

    (found,) = train(root).annotations

    assert (found.class_id, found.box) == (1, (1, 2.5, 5, 8.5))


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        ({"bbox": [1, 1, 4]}, "bbox has 3 numbers"),
        ({"bbox": [1, 1, 0, 4]}, "the box has no area"),
        ({"bbox": [1, 1, -3, 4]}, "the box has no area"),
        ({"bbox": [1, 1, "x", 4]}, "Expected `float`, got `str`"),
        ({"bbox": [9, 1, 8, 4]}, "ends 5 pixels outside of its picture of 12 x 12"),
        ({"bbox": [40, 1, 8, 4]}, "pixels outside of its picture"),
        ({"bbox": [float("nan"), 1, 8, 4]}, "bbox is not finite"),
        ({"bbox": [1, 1, float("inf"), 4]}, "bbox is not finite"),
        ({"category_id": 7}, "category_id 7 is not in `categories`"),
        ({"category_id": None}, "got `null`"),
        ({"image_id": 9}, "no picture has the id 9"),
        ({"image_id": [1]}, "got `array`"),
    ],
)
def test_a_faulty_annotation_is_refused_with_its_row(
    annotation: dict[str, Any], words: str, root: Path, refusal: Refusal
) -> None:
    save(root, coco([BOX, BOX | {"id": 2} | annotation]))

    message = refusal(root, "detect")

    assert words in message
    assert "annotations/instances_train.json:2: " in message


def test_an_annotation_without_its_picture_id_is_refused(root: Path, refusal: Refusal) -> None:
    save(root, coco([{"category_id": 1, "bbox": [1, 1, 2, 2]}]))

    assert "instances_train.json:1: annotations[0]: Object missing required field `image_id`" in refusal(root, "detect")


def test_nan_in_one_row_hides_none_of_the_others(root: Path) -> None:
    rows = [BOX | {"id": number} for number in range(1, 200)]
    rows[57] = rows[57] | {"bbox": [float("nan")] * 4}
    save(root, coco(rows))

    report = validate(root, "detect", "coco")

    assert report.splits["train"].annotations == 198
    assert [found.row for found in report.findings if found.code == "not-finite"] == [58]


def test_a_box_a_hair_outside_is_cut_and_said(root: Path) -> None:
    save(root, coco([BOX | {"bbox": [8, 8, 4.4, 4.2]}]))

    assert train(root).annotations[0].box == (8, 8, 12, 12)
    assert any("pixels outside of its picture, cut" in words for words in read_dataset(root, "detect").warnings)


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        ([], "no outline"),
        (None, "no outline"),
        ([[1, 1, 5, 5]], "not three or more pairs"),
        ([[1, 1, 5, 1, 5, 5, 1]], "not three or more pairs"),
        ([[1, 1, 2, 2, 3, 3]], "no area"),
        ([[1, 1, 5, 1, 5, 50]], "pixels outside"),
        ("x", "a segmentation that is none"),
        ({"size": [12, 12], "counts": [100]}, "do not add up to 144"),
        ({"size": [12, 12], "counts": [-4, 148]}, "do not add up"),
        ({"size": [9, 12], "counts": [108]}, "a mask of 12 x 9 on a picture of 12 x 12"),
        ({"size": [12, 12], "counts": "\x7f\x7f"}, "not COCO's compressed text"),
        ({"size": [12, 12], "counts": "oooo"}, "end in the middle"),
        ({"size": [12, 12], "counts": "é"}, "not COCO's compressed text"),
        ({"size": [12, 12], "counts": [144]}, "the mask is empty"),
    ],
)
def test_a_faulty_mask_is_refused(segmentation: Any, words: str, root: Path, refusal: Refusal) -> None:
    save(root, coco([BOX | {"segmentation": segmentation}]))

    assert words in refusal(root, "segment")


def test_crumbs_beside_a_sound_outline_are_left_out(root: Path) -> None:
    save(root, coco([BOX | {"segmentation": [[1, 1, 5, 1, 5, 5], [2, 2, 3, 3]]}]))

    assert train(root, "image-segmentation").annotations[0].polygons == ((1, 1, 5, 1, 5, 5),)


@pytest.mark.parametrize("compressed", [True, False])
def test_run_lengths_are_read_as_numbers_and_as_text(compressed: bool, root: Path) -> None:
    import numpy as np

    from eagleray.datasets.masks import pixels_of

    pixels = np.zeros((12, 12), np.uint8)
    pixels[3:6, 2:8] = 1
    flat = pixels.T.ravel().tolist()
    lengths, value = [0], 0
    for pixel in flat:
        if pixel != value:
            lengths.append(0)
            value = pixel
        lengths[-1] += 1
    counts = encoded(pixels).counts.decode() if compressed else lengths
    save(root, coco([{**BOX, "bbox": None, "segmentation": {"size": [12, 12], "counts": counts}}]))

    (found,) = train(root, "image-segmentation").annotations

    assert (pixels_of(found.rle) == pixels).all()
    assert found.box == (2, 3, 8, 6)


@pytest.mark.parametrize(
    ("keypoints", "words"),
    [([1, 1, 2], "3 keypoint numbers instead of 6"), ([1, 1, 3, 1, 1, 0], "a visibility is not 0, 1 or 2")],
)
def test_faulty_keypoints_are_refused(keypoints: list[float], words: str, root: Path, refusal: Refusal) -> None:
    categories = [{"id": 1, "name": "cat", "keypoints": ["left eye", "right eye"], "skeleton": [[1, 2]]}]
    save(root, coco([BOX | {"keypoints": [1, 1, 2, 2, 2, 1]}], categories=categories), "val")
    save(root, coco([BOX | {"keypoints": keypoints}], categories=categories))

    assert words in refusal(root, "pose")


def test_keypoints_bring_names_joints_and_their_mirror(root: Path) -> None:
    categories = [{"id": 1, "name": "cat", "keypoints": ["left_eye", "right_eye"], "skeleton": [[1, 2]]}]
    for split in ("train", "val"):
        save(root, coco([BOX | {"keypoints": [1, 1, 2, 2, 2, 1]}], categories=categories), split)

    info = open_dataset(root, None)[0].info

    assert (info.task, info.keypoints, info.flip_index) == ("keypoint-detection", (2, 3), (1, 0))
    assert (info.keypoint_names, info.skeleton) == (("left_eye", "right_eye"), ((0, 1),))


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "C:\\x.png", "a\0.png", "", ".."])
def test_a_picture_outside_is_never_opened(name: str, root: Path, refusal: Refusal) -> None:
    save(root, coco(images=[{"id": 1, "file_name": name, "width": 12, "height": 12}]))

    assert "is not in" in refusal(root, "detect")


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ([{"id": 1, "file_name": "a.png"}, {"id": 1, "file_name": "b.png"}], "images[1]: the id 1 a second time"),
        ([{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "a.png"}], "has two entries"),
        ([{"id": 1, "file_name": "gone.png"}], "the picture gone.png is not in train/"),
        ([{"id": 1, "file_name": 5}], "images[0]: Expected `str`, got `int`"),
        ([{"id": 1, "file_name": "a.png", "width": 99, "height": 12}], "the picture has 12 x 12"),
    ],
)
def test_faulty_pictures_are_refused(images: list[Any], words: str, root: Path, refusal: Refusal) -> None:
    save(root, coco(images=images))

    assert words in refusal(root, "detect")


def test_a_size_that_is_missing_comes_from_the_picture(root: Path) -> None:
    save(root, coco(images=[{"id": 1, "file_name": "a.png"}]))

    assert (train(root).width, train(root).height) == (12, 12)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"images": [], "annotations": []}', "has no `categories`"),
        ('{"images": [], "images": [], "annotations": [], "categories": []}', "`images` a second time"),
        ('{"images": {}, "annotations": [], "categories": []}', "'[' is expected, not '{'"),
        ('{"images": [1 2], "annotations": [], "categories": []}', "a comma or the end of a list"),
        ('{"images": [], "annotations": [{"id": 1', "is broken at byte"),
        ('{"images": [],} ', "a key is expected"),
        ('{"images": [], "annotations": [], "categories": []} x', "something follows the end"),
        ('{"info": ' + "[" * 200_000 + "]" * 200_000 + ', "images": []}', "nested too deeply"),
        ('{"images": [' + '{"a":' * 100_000 + "1" + "}" * 100_000 + "]}", "nested too deeply"),
        ('{"info": "' + "x" * 100, "is broken at byte"),
    ],
)
def test_a_broken_file_is_refused_with_its_place(text: str, words: str, root: Path, refusal: Refusal) -> None:
    save(root, text)

    message = refusal(root, "detect", "coco")

    assert words in message
    assert "instances_train.json" in message


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_a_file_that_is_not_utf8_is_refused(encoding: str, root: Path, refusal: Refusal) -> None:
    save(root, coco()).write_bytes(json.dumps(coco()).encode(encoding))

    assert "UTF-8" in refusal(root, "detect", "coco")


def test_a_byte_order_mark_is_read_and_said(root: Path) -> None:
    save(root, coco()).write_bytes(b"\xef\xbb\xbf" + json.dumps(coco()).encode())

    assert any("byte-order mark" in words for words in read_dataset(root, "detect").warnings)


def test_annotations_may_come_before_pictures_and_in_any_order(root: Path) -> None:
    Image.new("RGB", (12, 12)).save(root / "train/b.png")
    images = [{"id": key, "file_name": name, "width": 12, "height": 12} for key, name in ((5, "b.png"), ("x", "a.png"))]
    rows = [
        {"id": n, "image_id": key, "category_id": 1, "bbox": [n, 1, 2, 2]} for n, key in enumerate([5, "x", 5, "x"])
    ]
    whole = {"annotations": rows, "extra": {"a": [{"b": {}}]}, "images": images, "categories": coco()["categories"]}
    save(root, whole)

    source, findings = open_dataset(root, "detect")
    found = {
        record.name: [each.box[0] for each in record.annotations if each.box] for record in source.records("train")
    }

    findings.raise_faults()
    assert found == {"b.png": [0, 2], "a.png": [1, 3]}


def test_splits_that_differ_in_categories_are_refused(root: Path, refusal: Refusal) -> None:
    save(root, coco(categories=[{"id": 1, "name": "dog"}]), "val")

    assert "category 1 is 'dog' in val and 'cat' before" in refusal(root, "detect")


def test_an_exporters_parent_category_is_no_class(root: Path) -> None:
    categories = [{"id": 0, "name": "pets", "supercategory": "none"}]
    categories += [{"id": 1, "name": "cat", "supercategory": "pets"}]
    for split in ("train", "val"):
        save(root, coco(categories=categories), split)

    assert read_dataset(root, "detect").dataset.classes == ("cat",)


def test_the_layout_of_another_exporter_is_found(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        (tmp_path / split).mkdir()
        Image.new("RGB", (12, 12)).save(tmp_path / split / "a.png")
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(coco()))

    assert detect_format(tmp_path) == "coco"
    assert set(read_dataset(tmp_path, "detect").dataset.splits) == {"train", "val"}


def test_the_file_itself_may_be_named(root: Path) -> None:
    source, _ = open_dataset(root / "annotations/instances_train.json", None)

    assert source.info.images == {"train": "train"}
    assert len(list(source.records("train"))) == 1


def test_repeated_annotation_ids_are_said_and_all_are_read(root: Path) -> None:
    save(root, coco([BOX, BOX | {"bbox": [2, 2, 3, 3]}]))

    report = read_dataset(root, "detect")

    assert report.dataset.splits["train"].num_annotations == 2
    assert any("annotation ids are there twice" in warning for warning in report.warnings)


FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["id", "bbox", "x", "counts", "size"]), inner)
    ),
    max_leaves=12,
)


@FUZZ
@given(data=st.data())
def test_any_values_anywhere_give_a_report_or_our_own_error(data: st.DataObject, root: Path) -> None:
    whole = json.loads(
        json.dumps(coco([BOX | {"segmentation": [[1, 1, 5, 1, 5, 5]], "keypoints": [1, 1, 2], "iscrowd": 0}]))
    )
    place = data.draw(st.sampled_from(["images", "annotations", "categories"]))
    key = data.draw(st.sampled_from([*whole[place][0], "segmentation", ""]))
    if key:
        whole[place][0][key] = data.draw(PLAIN)
    else:
        whole[place] = data.draw(PLAIN)
    save(root, json.dumps(whole))
    for task in (None, "segment", "detect", "pose"):
        try:
            validate(root, task, "coco")
        except EaglerayError:
            pass


@FUZZ
@given(cut=st.integers(0, 400), junk=st.binary(max_size=12), rest=st.booleans())
def test_any_bytes_anywhere_give_a_report_or_our_own_error(cut: int, junk: bytes, rest: bool, root: Path) -> None:
    content = json.dumps(coco()).encode()
    save(root, coco()).write_bytes(content[:cut] + junk + (content[cut:] if rest else b""))

    try:
        validate(root, "detect", "coco")
    except EaglerayError:
        pass


def test_a_file_larger_than_any_annotation_is_refused_for_its_one_value(
    root: Path, refusal: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_stream, "MAX_ELEMENT", 1 << 16)
    save(root, coco(info="x" * (1 << 18)))

    assert "one value is longer than 65536 bytes" in refusal(root, "detect", "coco")


def test_what_is_no_dataset_at_all_is_refused_with_the_formats_that_are_known(tmp_path: Path) -> None:
    (tmp_path / "notes.json").write_text('{"a": 1}')

    with pytest.raises(DatasetError, match="of no dataset format") as caught:
        detect_format(tmp_path)

    assert "COCO" in caught.value.hint
