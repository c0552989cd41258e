"""The way in: a path, a task and perhaps a format."""

from __future__ import annotations

from pathlib import Path

from eagleray.contract import DatasetError, normalise_task
from eagleray.contract.tasks import IMAGE_CLASSIFICATION, IMAGE_TEXT_TO_TEXT
from eagleray.datasets.formats import FORMATS, detect_format, format_named, recognised
from eagleray.datasets.formats.base import Format
from eagleray.datasets.records import DatasetInfo, DatasetSource
from eagleray.datasets.report import DatasetReport, Findings, shown
from eagleray.datasets.scan import dataset_of, scan

# What a task's datasets usually are; its words are used where nothing is recognised.
USUAL = {IMAGE_CLASSIFICATION: "imagefolder", IMAGE_TEXT_TO_TEXT: "jsonl"}
NEEDED = {"train": "nothing can be learnt", "val": "the best epoch cannot be chosen"}
MADE = " Or have it made of train: `eagleray datasets import … --validation 0.2`, over HTTP the key `validation`."
SERVED = tuple(dict.fromkeys(task for form in FORMATS.values() for task in form.reads))


def read_dataset(path: str | Path, task: str, format: str | None = None, *, decode: bool = True) -> DatasetReport:
    """Read and check all of a dataset: description, pairing, every label row, every picture.

    Args:
        path: the dataset's folder, or the file in it that describes it.
        task: a task name or alias.
        format: a name of `FORMATS`; None: by what lies there.
        decode: whether every picture is decoded; without, only what labels need of it is read.

    Raises:
        DatasetError: the first ten faults with file and line, how many there are, and how to mend them.
        UnknownNameError: an unknown task or format.
    """
    source, findings = open_dataset(path, task, format)
    require_splits(source.info, format_named(source.info.format))
    tallies = scan(source, findings, decode=decode)
    findings.raise_faults()
    return DatasetReport(dataset_of(source.info, tallies), findings.warnings)


def open_dataset(
    path: str | Path, task: str | None, format: str | None = None, *, mend: bool = False
) -> tuple[DatasetSource, Findings]:
    """The dataset as a stream, and where its faults will be.

    Raises:
        DatasetError: it is not there, not usable as a whole, or does not serve the task.
        UnknownNameError: an unknown task or format.
    """
    task = normalise_task(task) if task else None
    given = Path(path).expanduser().absolute()
    form = chosen_format(given, task, format)
    root = folder_of(given)
    findings = Findings(root)
    source = form.open(given, task, findings, mend=mend)
    for sentence in left_out(source.info):
        findings.warn(sentence, code="left-out")
    return source, findings


def left_out(info: DatasetInfo) -> tuple[str, ...]:
    """What lies there and is not read, a sentence each."""
    return tuple(f"Left out: {what} (--task {task} reads them)." for task, what in info.also_holds.items())


def chosen_format(given: Path, task: str | None, name: str | None) -> Format:
    """The named format, else the one that is recognised and serves the task. Raises DatasetError, UnknownNameError."""
    if task is not None and task not in SERVED:
        raise DatasetError(f"No dataset format here serves the task {task}.", f"Valid: {', '.join(SERVED)}.")
    if name is not None:
        form = format_named(name)
        if task is not None and task not in form.reads:
            wanted = " or ".join(each.name for each in FORMATS.values() if task in each.reads)
            raise DatasetError(f"The format {name} does not serve the task {task}.", f"Use --dataset-format {wanted}.")
        return form
    if task is None:
        return FORMATS[detect_format(given)]
    folder_of(given)
    fitting = [found for found in recognised(given) if task in FORMATS[found].reads]
    if len(fitting) > 1:
        detect_format(given)
    return FORMATS[fitting[0] if fitting else USUAL.get(task, "dice")]


def require_splits(info: DatasetInfo, form: Format) -> None:
    """Raises DatasetError where a split that training needs is missing."""
    for split, use in NEEDED.items():
        if split not in info.images:
            message = f"The dataset {shown(info.root)} has no {split} split, so {use}."
            raise DatasetError(message, form.split_hint(split) + (MADE if split == "val" else ""))


def folder_of(given: Path) -> Path:
    """The dataset's folder. Raises DatasetError where there is none or it is empty."""
    if not given.exists():
        raise DatasetError(f"There is no dataset at {shown(given)}.", "Name a folder, or the data.yaml in it.")
    described = given.is_file() and given.suffix.lower() in {".yaml", ".yml", ".json", ".csv", ".jsonl"}
    root = given.parent if described else given
    if not root.is_dir():
        raise DatasetError(f"{shown(given)} is not a folder.", "Name a dataset's folder, or the data.yaml in it.")
    if not any(root.iterdir()):
        raise DatasetError(f"The folder {shown(root)} is empty.", "Name a folder that holds a dataset.")
    return root
