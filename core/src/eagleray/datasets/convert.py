"""From any format to any other that serves the task; what would be lost is refused unless it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from pydantic import BaseModel

from eagleray.contract import DatasetError, normalise_task
from eagleray.contract.tasks import (
    IMAGE_SEGMENTATION,
    KEYPOINT_DETECTION,
    OBJECT_DETECTION,
    ZERO_SHOT_OBJECT_DETECTION,
)
from eagleray.datasets.edit import Edit, edited
from eagleray.datasets.formats import FORMATS, format_named
from eagleray.datasets.formats.base import Format
from eagleray.datasets.read import left_out, open_dataset
from eagleray.datasets.records import DatasetInfo, DatasetSource, DatasetWriter, ImageRecord
from eagleray.datasets.report import Findings, shown
from eagleray.datasets.scan import Tally, counts_by_name, scan
from eagleray.datasets.writing import Files, Placing, new_folder

BOXES = (OBJECT_DETECTION, ZERO_SHOT_OBJECT_DETECTION)
# What becomes of the annotations where another task is asked for.
LESS = {IMAGE_SEGMENTATION: "masks become boxes", KEYPOINT_DETECTION: "keypoints are left out, boxes stay"}
# These have no place for the mark of what is neither trained on nor evaluated, nor has a mask of Pascal VOC.
WITHOUT_IGNORE = frozenset({"dice", "yolo"})


class SplitCounts(BaseModel):
    """Pictures, annotations, and pictures without any."""

    images: int
    annotations: int
    backgrounds: int


class ConversionReport(BaseModel):
    """What was written.

    Attributes:
        annotations: as many as the source has, but for `ignored`.
        ignored: marked as crowd or difficult, and left out because the format has no such mark.
        renamed: pictures that got another name because theirs was taken.
        lost: what was asked to be lost.
        warnings: what was odd about the source.
    """

    path: Path
    source_format: str
    format: str
    task: str
    classes: tuple[str, ...]
    splits: dict[str, SplitCounts]
    class_counts: dict[str, int]
    ignored: int = 0
    renamed: int = 0
    lost: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def images(self) -> int:
        return sum(split.images for split in self.splits.values())

    @property
    def annotations(self) -> int:
        return sum(split.annotations for split in self.splits.values())

    def text(self) -> str:
        lines = [
            f"{self.path}: {self.images} pictures and {self.annotations} annotations, "
            f"{self.source_format} → {self.format}, {self.task}"
        ]
        lines += [
            f"  {name}: {each.images} pictures, {each.annotations} annotations" for name, each in self.splits.items()
        ]
        if self.renamed:
            lines.append(f"  {self.renamed} pictures renamed, because another had their name")
        lines += [f"  lost: {sentence}" for sentence in self.lost]
        return "\n".join([*lines, *(f"  warning: {sentence}" for sentence in self.warnings)])


@dataclass
class Writing:
    """Passes records on to a writer, as a scan goes by."""

    writer: DatasetWriter
    keeps_ignored: bool
    ignored: int = 0
    tallies: dict[str, Tally] = field(default_factory=dict)

    def watch(self, records: Iterable[ImageRecord]) -> Iterator[ImageRecord]:
        for record in records:
            kept = record if self.keeps_ignored else self.without_ignored(record)
            self.writer.write(kept)
            self.tallies.setdefault(record.split, Tally()).add(kept, repeats=False)
            yield record

    def without_ignored(self, record: ImageRecord) -> ImageRecord:
        if not any(found.ignore for found in record.annotations):
            return record
        kept = tuple(found for found in record.annotations if not found.ignore)
        self.ignored += len(record.annotations) - len(kept)
        return msgspec.structs.replace(record, annotations=kept)


def convert(
    source: str | Path,
    target_format: str,
    into: str | Path,
    *,
    source_format: str | None = None,
    task: str | None = None,
    allow_loss: bool = False,
    edit: Edit | None = None,
    placing: Placing = Placing.COPY,
) -> ConversionReport:
    """Write the dataset `source` in another format into the new folder `into`.

    Pictures are hard-linked where they can be, unless `placing` says otherwise. Every annotation is checked; pictures
    are not decoded (`validate` does that). Where anything fails, nothing is left.

    Args:
        task: for a lesser task than the source's own: boxes of masks, say.
        allow_loss: go on where the target cannot hold all; the report says what was lost.
        edit: classes and splits of the copy.
        placing: OWN where the source's files must not be shared with the copy.

    Raises:
        DatasetError: the source is faulty (as `read_dataset`), the task does not fit, or something would be lost.
        UnknownNameError: a format, task, class or split that does not exist.
    """
    opened, findings = open_as(source, task, source_format)
    wanted = normalise_task(task) if task else opened.info.task
    shaped = edited(opened, edit) if edit else opened
    return write(shaped, target_format, into, task=wanted, allow_loss=allow_loss, findings=findings, placing=placing)


def open_as(
    path: str | Path, task: str | None, format: str | None, *, mend: bool = False
) -> tuple[DatasetSource, Findings]:
    """The dataset with all that it holds, where `task` is a lesser one; else as `task` reads it."""
    opened, findings = open_dataset(path, None, format, mend=mend)
    wanted = normalise_task(task) if task else opened.info.task
    if wanted in (opened.info.task, OBJECT_DETECTION, ZERO_SHOT_OBJECT_DETECTION):
        return opened, findings
    return open_dataset(path, wanted, format, mend=mend)


def write(
    source: DatasetSource,
    target_format: str,
    into: str | Path,
    *,
    task: str | None = None,
    allow_loss: bool = False,
    findings: Findings | None = None,
    placing: Placing = Placing.COPY,
    decode: bool = False,
) -> ConversionReport:
    """Write any source in `target_format` into the new folder `into`. See `convert`.

    Args:
        findings: those that the source was opened with; its faults end the writing.
        decode: whether every picture is decoded on the way.
    """
    form, info = format_named(target_format), source.info
    task = task or info.task
    check_task(info, task, form)
    written = info if task == info.task else info.described(task=task, keypoints=None, flip_index=(), skeleton=())
    lost = static_losses(info, task, form)
    refuse(lost, allow_loss)
    noted = findings or Findings(info.root)
    target = Path(into).expanduser().absolute()
    with new_folder(target) as folder:
        with Files(folder, placing) as files, closing(form.writer(files, written)) as writer:
            writing = Writing(writer, keeps_ignored(form, task))
            scan(source, noted, decode=decode, watch=writing.watch)
        noted.raise_faults()
        if writing.ignored:
            words = f"{writing.ignored} annotations marked as crowd or difficult are left out"
            lost = (*lost, words)
            refuse((words,), allow_loss)
    return report_of(written, target, form, writing, files, lost, noted)


def check_task(info: DatasetInfo, task: str, form: Format) -> None:
    """Raises DatasetError where the source does not hold what the task needs, or the format does not."""
    if task != info.task and not (task in BOXES and (info.task in LESS or info.task in BOXES)):
        raise DatasetError(f"{shown(info.root)} is of {info.task}; {task} cannot be made of it.", "Leave the task out.")
    if task not in form.writes:
        able = ", ".join(each.name for each in FORMATS.values() if task in each.writes)
        raise DatasetError(f"The format {form.name} does not hold {task}.", f"Formats that do: {able}.")


def keeps_ignored(form: Format, task: str) -> bool:
    return form.name not in WITHOUT_IGNORE and not (form.name == "voc" and task == IMAGE_SEGMENTATION)


def static_losses(info: DatasetInfo, task: str, form: Format) -> tuple[str, ...]:
    """What is lost whatever the annotations are."""
    losses = []
    if task != info.task and info.task in LESS:
        losses.append(LESS[info.task])
    losses += [f"{what} are left out (--task {other} reads them)" for other, what in info.also_holds.items()]
    if task == IMAGE_SEGMENTATION and form.name == "voc" and info.format != "voc":
        losses.append("outlines become masks of whole pixels, and where objects overlap one of them is cut")
    return tuple(losses)


def refuse(lost: tuple[str, ...], allow_loss: bool) -> None:
    """Raises DatasetError where something is lost and that was not asked for."""
    if lost and not allow_loss:
        raise DatasetError(f"Something would be lost: {'; '.join(lost)}.", "If that is wanted: --allow-loss.")


def report_of(
    info: DatasetInfo,
    path: Path,
    form: Format,
    writing: Writing,
    files: Files,
    lost: tuple[str, ...],
    findings: Findings,
) -> ConversionReport:
    return ConversionReport(
        path=path,
        source_format=info.format,
        format=form.name,
        task=info.task,
        classes=info.classes,
        splits={
            split: SplitCounts(
                images=tally.images, annotations=tally.classes.total(), backgrounds=tally.unlabelled + tally.empty
            )
            for split, tally in writing.tallies.items()
        },
        class_counts=counts_by_name(info.classes, writing.tallies.values()),
        ignored=writing.ignored,
        renamed=files.renamed,
        lost=lost,
        # What was not read is among what was lost.
        warnings=tuple(sentence for sentence in findings.warnings if sentence not in left_out(info)),
    )
