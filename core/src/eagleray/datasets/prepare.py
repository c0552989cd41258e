"""Gives a plugin the form it trains from, whatever the dataset's own."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from eagleray.contract import DatasetError, EaglerayError, normalise_task
from eagleray.datasets.convert import write
from eagleray.datasets.formats import FORMATS
from eagleray.datasets.formats.base import Format
from eagleray.datasets.images import SUFFIXES, walk
from eagleray.datasets.read import chosen_format, folder_of, open_dataset, read_dataset, require_splits
from eagleray.datasets.report import DatasetReport, shown
from eagleray.datasets.writing import Placing

# Part of a prepared dataset's name: one written by other rules is not taken for it.
RULES = "1"
WARNINGS = ".warnings.json"


def prepare_form(
    path: str | Path, task: str, wanted_formats: Sequence[str], into: Path, format: str | None = None
) -> DatasetReport:
    """The dataset at `path` in one of `wanted_formats`, read and checked to its last picture.

    In one of these forms already it is left where it is. Else it is written into a folder of `into` that is named by
    the content of its files, its pictures hard-linked, and found there the next time.

    Args:
        wanted_formats: what a plugin declares (`Framework.dataset_formats`), preferred first.
        format: the dataset's own format; None: by what lies there.

    Raises:
        DatasetError: it is faulty (see `read_dataset`), or none of the formats holds the task.
    """
    task = normalise_task(task)
    given = Path(path).expanduser().absolute()
    form = chosen_format(given, task, format)
    if form.name in wanted_formats:
        return read_dataset(given, task, form.name)
    target = form_for(form.name, task, wanted_formats, shown(given))
    folder = into / fingerprint(folder_of(given), given, task, target)
    if not (folder / WARNINGS).is_file():
        prepare(given, task, form, target, folder)
    report = read_dataset(folder, task, target, decode=False)
    warnings = tuple(json.loads((folder / WARNINGS).read_text(encoding="utf-8")))
    return DatasetReport(report.dataset, warnings)


def form_for(format: str, task: str, wanted_formats: Sequence[str], what: str) -> str:
    """Which of `wanted_formats` a dataset of `format` is given in: its own where it can be. Raises DatasetError."""
    if format in wanted_formats:
        return format
    for name in wanted_formats:
        if name in FORMATS and task in FORMATS[name].writes:
            return name
    raise DatasetError(
        f"{what} is of the format {format}, which cannot become one of {', '.join(wanted_formats)} "
        f"for the task {task}.",
        f"Give it in one of: {', '.join(wanted_formats)}.",
    )


def prepare(given: Path, task: str, form: Format, target: str, folder: Path) -> None:
    """Write the dataset into `folder`; where another process does so at the same time, the first one's stays."""
    source, findings = open_dataset(given, task, form.name)
    require_splits(source.info, form)
    try:
        report = write(source, target, folder, allow_loss=True, findings=findings, placing=Placing.SYMLINK, decode=True)
    except EaglerayError:
        if (folder / WARNINGS).is_file():
            return
        raise
    said = f"The dataset is of the format {form.name}; it is trained from as {target}."
    warnings = [*report.warnings, said, *(f"In that form {sentence}." for sentence in report.lost)]
    partial = folder / f"{WARNINGS}.{os.getpid()}"
    partial.write_text(json.dumps(warnings), encoding="utf-8")
    partial.replace(folder / WARNINGS)


def fingerprint(root: Path, given: Path, task: str, target: str) -> str:
    """A name for the dataset's content: text files by their bytes, pictures by size and time."""
    digest = hashlib.sha256(f"{RULES}\0{task}\0{target}\0{given.name if given != root else ''}".encode())
    for path in walk(root):
        status = path.stat()
        digest.update(f"\0{path.relative_to(root)}\0{status.st_size}\0".encode("utf-8", "surrogateescape"))
        if path.suffix.lower() in SUFFIXES:
            digest.update(str(status.st_mtime_ns).encode())
        else:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]
