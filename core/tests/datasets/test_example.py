"""The example datasets are composited as they say and are accepted for all four tasks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from eagleray.datasets import read_dataset

SCRIPT = Path(__file__).parents[3] / "examples/make_dataset.sh"
TASKS = ("object-detection", "image-segmentation", "keypoint-detection", "image-classification")


def make(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "EAGLERAY_BIN": str(Path(sys.executable).parent)}
    return subprocess.run(["sh", SCRIPT, out, *options], env=env, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    for task in TASKS:
        made = make(folder / task, "--images", "20", "--task", task)
        assert made.returncode == 0, made.stderr
        assert "composited" in made.stdout
    return folder


@pytest.mark.parametrize("task", TASKS)
def test_the_example_of_each_task_is_accepted_without_a_warning(task: str, sets: Path) -> None:
    report = read_dataset(sets / task, task)

    assert report.warnings == ()
    assert report.dataset.num_images == 20
    assert report.dataset.num_annotations >= 20
    assert report.dataset.classes in {("zero", "one", "two"), ("one", "two", "zero")}


def rows(root: Path) -> list[list[float]]:
    labels = sorted(root.glob("*/labels/*.txt"))
    return [[float(field) for field in row.split()] for label in labels for row in label.read_text().splitlines()]


def test_outlines_and_keypoints_lie_on_the_edges_of_the_boxes(sets: Path) -> None:
    boxes, outlines, poses = (rows(sets / task) for task in TASKS[:3])
    pixel = 1 / 160

    for (class_id, cx, cy, w, h), outline, pose in zip(boxes, outlines, poses, strict=True):
        assert outline[0] == pose[0] == class_id
        # An outline keeps every eighth corner or so, hence the room of eight pixels.
        assert max(outline[1::2]) - min(outline[1::2]) == pytest.approx(w, abs=8 * pixel)
        assert max(outline[2::2]) - min(outline[2::2]) == pytest.approx(h, abs=8 * pixel)
        top, bottom, left, right = (pose[start : start + 2] for start in (5, 8, 11, 14))
        assert (top[1], bottom[1]) == pytest.approx((cy - h / 2, cy + h / 2), abs=pixel)
        assert (left[0], right[0]) == pytest.approx((cx - w / 2, cx + w / 2), abs=pixel)


def test_objects_are_big(sets: Path) -> None:
    assert all(0.35 <= max(row[3:5]) <= 0.65 for row in rows(sets / "object-detection"))


def test_the_same_arguments_give_the_same_bytes_and_another_seed_others(sets: Path, tmp_path: Path) -> None:
    make(tmp_path / "same", "--images", "20")
    make(tmp_path / "other", "--images", "20", "--seed", "1")

    def content(root: Path) -> list[bytes]:
        return [path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()]

    assert content(tmp_path / "same") == content(sets / "object-detection")
    assert content(tmp_path / "other") != content(sets / "object-detection")


@pytest.mark.parametrize(
    ("options", "words"),
    [(["--classes", "11"], "1 to 10"), (["--images", "3"], "at least 6"), (["--size", "8"], "32 to 4096")],
)
def test_arguments_out_of_bounds_are_refused(options: list[str], words: str, tmp_path: Path) -> None:
    made = make(tmp_path / "out", *options)

    assert made.returncode == 2
    assert words in made.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_left_alone(sets: Path) -> None:
    made = make(sets)

    assert made.returncode == 2
    assert "not an empty folder" in made.stderr
