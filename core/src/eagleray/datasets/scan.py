"""Reads a source to its last label and picture, and counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from eagleray.contract import Dataset, Split
from eagleray.datasets.images import checked
from eagleray.datasets.records import DatasetInfo, DatasetSource, ImageRecord
from eagleray.datasets.report import Findings, shown

Watch = Callable[[Iterable[ImageRecord]], Iterator[ImageRecord]]


@dataclass
class Tally:
    """Figures of one split while it is read."""

    images: int = 0
    unlabelled: int = 0
    empty: int = 0
    repeated: int = 0
    ignored: int = 0
    classes: Counter[int] = field(default_factory=Counter)

    def add(self, record: ImageRecord, *, repeats: bool = True) -> None:
        """Count the record; `repeats` is whether to compare its annotations, which takes longest."""
        self.images += 1
        found = record.annotations
        if not record.labelled:
            self.unlabelled += 1
        elif not found:
            self.empty += 1
        for annotation in found:
            self.classes[annotation.class_id] += 1
            self.ignored += annotation.ignore
        if repeats and len(found) > 1:
            self.repeated += len(found) - len(set(found))

    def split(self, images: str, annotations: str) -> Split:
        return Split(images, self.images, self.classes.total(), self.unlabelled + self.empty, annotations)


def scan(
    source: DatasetSource, findings: Findings, *, decode: bool = True, watch: Watch | None = None
) -> dict[str, Tally]:
    """Every split's figures. Faults go to `findings`; `watch` sees every record pass."""
    tallies = {}
    for split in source.info.splits:
        tally = tallies[split] = Tally()
        records: Iterable[ImageRecord] = source.records(split)
        records = checked(records, findings) if decode else records
        for record in watch(records) if watch else records:
            tally.add(record)
        judge(source.info, split, tally, findings)
    return tallies


def judge(info: DatasetInfo, split: str, tally: Tally, findings: Findings) -> None:
    """What the figures of a split say."""
    folder = info.root / info.images[split]
    if not tally.images:
        # Where every picture was refused, those faults say it.
        suffixes = "Pictures end in .jpg, .jpeg, .png, .bmp, .webp, .tif or .tiff."
        if not any(finding.severity == "error" for finding in findings.items):
            findings.fault(folder, "no picture in this folder", suffixes, code="split-empty")
        return
    if tally.unlabelled + tally.empty:
        bare = tally.unlabelled + tally.empty
        findings.warn(
            f"{split}: {bare} of {tally.images} pictures have no object and count as backgrounds "
            f"({tally.unlabelled} without a label file, {tally.empty} with an empty one).",
            code="background",
        )
    if tally.repeated:
        sentence = f"{split}: {tally.repeated} label rows repeat another of the same picture; frameworks may drop them."
        findings.warn(sentence, code="row-repeated")
    if split != "train" or not info.classes:
        return
    if not tally.classes:
        fix = f"Put the label files into {info.annotations.get(split, info.images[split])}."
        findings.fault(folder, f"none of the {tally.images} pictures has an object", fix, code="split-empty")
    elif unseen := [name for number, name in enumerate(info.classes) if number not in tally.classes]:
        findings.warn(f"No object in train of: {shown(', '.join(unseen))}.", code="class-empty")


def counts_by_name(classes: tuple[str, ...], tallies: Iterable[Tally]) -> dict[str, int]:
    """Annotations of each class over all splits; two classes of one name are added."""
    found = dict.fromkeys(classes, 0)
    for tally in tallies:
        for number, name in enumerate(classes):
            found[name] += tally.classes[number]
    return found


def dataset_of(info: DatasetInfo, tallies: dict[str, Tally]) -> Dataset:
    splits = {
        split: tally.split(info.images[split], info.annotations.get(split, "")) for split, tally in tallies.items()
    }
    return Dataset(
        info.root, info.format, info.task, info.classes, splits, info.keypoints, info.flip_index, info.tables
    )
