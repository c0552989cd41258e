"""Boxes of DICE and YOLO rows that end outside of their picture: said, and cut wherever they are written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eagleray.datasets import FORMATS, convert, open_dataset, read_dataset, validate
from eagleray.testing.data import write_detection_dataset, write_keypoint_dataset

BOX_FORMATS = [form.name for form in FORMATS.values() if "object-detection" in form.writes]
SIDES = st.floats(0.001, 1)
# Columns that any framework takes: each in 0..1, wherever the box that they make ends.
ROWS = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), SIDES, SIDES), min_size=1, max_size=5, unique=True)


def label(root: Path, rows: str) -> None:
    (root / "train/labels/train-0000.txt").write_text(rows)


def test_a_box_that_ends_outside_is_a_warning_with_its_row_and_is_cut(root: Path) -> None:
    label(root, "0 .5 .5 .1 .1\n0 .95 .5 .3 .1\n")

    report = validate(root)
    record = next(iter(open_dataset(root, None)[0].records("train")))

    (found,) = report.findings
    assert (found.severity, found.code) == ("warning", "outside")
    assert (found.path, found.row) == ("train/labels/train-0000.txt", 2)
    assert "6.4 pixels outside" in found.message
    assert record.annotations[1].box == pytest.approx((51.2, 28.8, 64, 35.2))


def test_a_hair_that_rounding_leaves_outside_is_not_worth_a_word(root: Path) -> None:
    label(root, "0 .8333335 .5 .333334 .1\n")

    assert not validate(root).findings


def test_a_box_that_no_writer_can_hold_has_no_area(root: Path) -> None:
    label(root, "0 .5 .5 1e-9 .1\n")

    assert [found.code for found in validate(root).findings if found.severity == "error"] == ["no-area"]


def test_keypoints_stay_where_their_box_is_cut(tmp_path: Path) -> None:
    root = write_keypoint_dataset(tmp_path / "set")
    label(root, "0 .95 .5 .3 .1 .9 .5 2 .99 .5 1\n")

    (found,) = next(iter(open_dataset(root, None)[0].records("train"))).annotations

    assert found.box == pytest.approx((51.2, 28.8, 64, 35.2))
    assert [visibility for _, _, visibility in found.keypoints] == [2, 1]


@pytest.mark.parametrize("form", BOX_FORMATS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS)
def test_whatever_row_is_read_is_written_as_a_sound_one(
    form: str, rows: list[tuple[float, float, float, float]], tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path, ignore_errors=True)
    root = write_detection_dataset(tmp_path / "set")
    label(root, "".join(f"0 {cx!r} {cy!r} {w!r} {h!r}\n" for cx, cy, w, h in rows))
    before = read_dataset(root, "detect").counts()

    convert(root, form, tmp_path / "copy")

    report = validate(tmp_path / "copy")
    assert report.errors == 0
    assert not [found for found in report.findings if found.code == "outside"]
    assert read_dataset(tmp_path / "copy", "detect").counts() == before
