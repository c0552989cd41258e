"""A dataset of every format that holds a task, brought into the plugin's form and trained from by Ultralytics."""

from __future__ import annotations

from pathlib import Path

import pytest

from eagleray.datasets import FORMATS, convert, prepare_form
from eagleray.testing.attempt import AttemptSpec
from eagleray.testing.attempts import Runner, code_folder
from eagleray.testing.conformance.case import WRITERS
from eagleray.testing.environment import python_of
from eagleray_ultralytics.framework import describe

pytestmark = [pytest.mark.framework, pytest.mark.slow, pytest.mark.timeout(900)]
SMALL = {"imgsz": 64, "plots": False, "nbs": 4}
CASES = [
    pytest.param(task, form.name, id=f"{form.name} {task}")
    for form in FORMATS.values()
    for task in WRITERS
    if task in form.writes
]


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    code = code_folder(tmp_path_factory.mktemp("code"), ["eagleray", "eagleray_ultralytics"])
    return Runner(python_of(describe("0")), code, 600)


@pytest.mark.parametrize(("task", "form"), CASES)
def test_an_epoch_is_trained_from_it(task: str, form: str, runner: Runner, tmp_path: Path) -> None:
    source = WRITERS[task](tmp_path / "source", images=8, size=64)
    folder = convert(source, form, tmp_path / "dataset", allow_loss=True).path
    dataset = prepare_form(folder, task, describe("0").dataset_formats, tmp_path / "forms", form).dataset

    outcome = runner.run(
        AttemptSpec("eagleray_ultralytics", "ultralytics", tmp_path / "run", task, "yolo11n", SMALL, dataset)
    )

    assert outcome.error is None, outcome.output
    assert [report.epoch for report in outcome.reports] == [1]
    assert outcome.final is not None
    assert (dataset.num_images, dataset.splits["val"].num_images) == (8, 2)
