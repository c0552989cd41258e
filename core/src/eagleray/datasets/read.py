"""The way in: a path, a task and perhaps a format."""

from __future__ import annotations

from pathlib import Path

from eagleray.contract import Dataset, DatasetError, normalise_task
from eagleray.contract.errors import unknown_name
from eagleray.contract.tasks import IMAGE_CLASSIFICATION
from eagleray.datasets.dice import read_dice
from eagleray.datasets.imagefolder import read_imagefolder
from eagleray.datasets.labels import ROWS
from eagleray.datasets.report import DatasetReport, Findings, shown

FORMATS = ("dice", "imagefolder")


def read_dataset(path: str | Path, task: str, format: str | None = None) -> DatasetReport:
    """Read and check all of a dataset: description, pairing, every label row, every picture.

    Args:
        path: the dataset's folder, or the `data.yaml` in it.
        task: a task name or alias.
        format: `dice` or `imagefolder`; None takes the task's own (`imagefolder` for classification).

    Raises:
        DatasetError: the first ten faults with file and line, how many there are, and how to mend them.
        UnknownNameError: an unknown task or format.
    """
    task = normalise_task(task)
    name = format or ("imagefolder" if task == IMAGE_CLASSIFICATION else "dice")
    if name not in FORMATS:
        raise unknown_name("dataset format", name, FORMATS)
    if task != IMAGE_CLASSIFICATION and task not in ROWS:
        raise DatasetError(
            f"No dataset format here serves the task {task}.", f"Valid: {', '.join([*ROWS, IMAGE_CLASSIFICATION])}."
        )
    if (name == "imagefolder") != (task == IMAGE_CLASSIFICATION):
        wanted = "imagefolder" if task == IMAGE_CLASSIFICATION else "dice"
        raise DatasetError(f"The format {name} does not serve the task {task}.", f"Use --dataset-format {wanted}.")
    given = Path(path).expanduser().absolute()
    root = folder_of(given)
    findings = Findings(root)
    dataset: Dataset
    if name == "imagefolder":
        dataset = read_imagefolder(root, findings)
    else:
        dataset = read_dice(root, task, findings, description=given if given != root else None)
    findings.raise_faults()
    return DatasetReport(dataset, tuple(findings.warnings))


def folder_of(given: Path) -> Path:
    """The dataset's folder. Raises DatasetError where there is none or it is empty."""
    if not given.exists():
        raise DatasetError(f"There is no dataset at {shown(given)}.", "Name a folder, or the data.yaml in it.")
    root = given.parent if given.suffix.lower() in {".yaml", ".yml"} and given.is_file() else given
    if not root.is_dir():
        raise DatasetError(f"{shown(given)} is not a folder.", "Name a dataset's folder, or the data.yaml in it.")
    if not any(root.iterdir()):
        raise DatasetError(f"The folder {shown(root)} is empty.", "Name a folder that holds a dataset.")
    return root
