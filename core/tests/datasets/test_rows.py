"""Label rows: what a sound one is, and what a faulty one is refused with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from eagleray.datasets import read_dataset
from eagleray.testing.data import (
    write_keypoint_dataset,
    write_segmentation_dataset,
)

Refusal = Callable[..., str]


def label(root: Path, text: str) -> None:
    (root / "train/labels/train-0000.txt").write_text(text, encoding="utf-8")


def test_labels_with_a_mark_at_the_front_and_windows_line_ends_are_read(root: Path) -> None:
    (root / "train/labels/train-0000.txt").write_bytes(b"\xef\xbb\xbf0 .5 .5 .2 .2\r\n\r\n1 .4 .4 .2 .2\r\n")
    (root / "data.yaml").write_bytes(b"\xef\xbb\xbf" + (root / "data.yaml").read_bytes().replace(b"\n", b"\r\n"))
    before = read_dataset(root, "detect").dataset.splits["train"].num_annotations

    label(root, "0 .5 .5 .2 .2\n")

    assert read_dataset(root, "detect").dataset.splits["train"].num_annotations == before - 1


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
def test_a_faulty_row_is_refused_with_file_and_line(row: str, words: str, root: Path, refusal: Refusal) -> None:
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
def test_a_faulty_outline_is_refused(row: str, words: str, tmp_path: Path, refusal: Refusal) -> None:
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
def test_faulty_keypoints_are_refused(row: str, words: str, tmp_path: Path, refusal: Refusal) -> None:
    root = write_keypoint_dataset(tmp_path / "set")
    label(root, row)

    assert words in refusal(root, "pose")


def test_only_ten_faults_are_named_and_the_rest_counted(root: Path, refusal: Refusal) -> None:
    label(root, "9 .5 .5 .2 .2\n" * 25)

    message = refusal(root)

    assert "has 25 faults" in message
    assert message.count("class 9 is not") == 10
    assert "and 15 more" in message


def test_repeated_rows_are_said(root: Path) -> None:
    label(root, "0 .5 .5 .2 .2\n0 .5 .5 .2 .2\n1 .5 .5 .2 .2\n")

    assert "train: 1 label rows repeat" in read_dataset(root, "detect").warnings[0]


def test_a_terminal_is_not_obeyed_through_a_file_name(root: Path, refusal: Refusal) -> None:
    (root / "train/labels/\x1b[31mred.txt").write_text("0 .5 .5 .2 .2\n")

    assert "\x1b" not in refusal(root)
