"""COCO: one JSON file for each split, with `images`, `annotations` and `categories`."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from eagleray.contract import DatasetError
from eagleray.contract.tasks import IMAGE_SEGMENTATION, KEYPOINT_DETECTION
from eagleray.datasets.formats.base import OBJECTS, Format
from eagleray.datasets.formats.coco_entry import CocoEntry, around, box_of, entries_of, entry_of, mask_of
from eagleray.datasets.formats.coco_index import CocoImage, CocoIndex, Id, read_index
from eagleray.datasets.formats.coco_layout import (
    Skeleton,
    agreed_categories,
    also_held,
    annotation_files,
    flip_of,
    guess_task,
    images_of,
    is_coco,
    keypoints_of,
)
from eagleray.datasets.formats.coco_writer import CocoWriter
from eagleray.datasets.geometry import RowError, inside
from eagleray.datasets.images import header
from eagleray.datasets.places import Named, safe_name
from eagleray.datasets.records import Annotation, DatasetInfo, DatasetWriter, ImageRecord
from eagleray.datasets.report import Findings, shown
from eagleray.datasets.writing import Files


@dataclass(frozen=True)
class CocoSource:
    """Annotation files, read again for each picture by the index of where its annotations lie."""

    info: DatasetInfo
    indexes: dict[str, CocoIndex]
    class_ids: dict[Id, int]
    findings: Findings
    mend: bool
    named: Named

    def records(self, split: str) -> Iterator[ImageRecord]:
        index = self.indexes[split]
        folder = self.info.root / self.info.images[split]
        names: set[str] = set()
        descriptor = os.open(index.path, os.O_RDONLY)
        try:
            for number, image in enumerate(index.images):
                if (name := self.name_of(image, split, folder, names, index.path)) is None:
                    continue
                path = folder / name
                width, height = whole(image.width), whole(image.height)
                if width < 1 or height < 1:
                    width, height = header(path).displayed
                found = self.annotations(index, number, descriptor, width, height)
                yield ImageRecord(name, path, width, height, split, found)
        finally:
            os.close(descriptor)
        self.named.read(split, names)

    def name_of(self, image: CocoImage, split: str, folder: Path, names: set[str], path: Path) -> str | None:
        """The picture's name below `folder`; None where it cannot be had, which is noted."""
        name = safe_name(image.file_name, folder)
        if name is None or not self.named.has(split, name):
            what = f"the picture {shown(image.file_name)} is not in {shown(folder.name)}/"
            self.findings.fault(path, what, "Add the picture, or remove its entry.", code="image-missing")
            return None
        if name in names:
            what = f"the picture {shown(image.file_name)} has two entries in `images`"
            self.findings.fault(path, what, "Make them one.", code="image-name")
            return None
        names.add(name)
        return name

    def annotations(
        self, index: CocoIndex, number: int, descriptor: int, width: int, height: int
    ) -> tuple[Annotation, ...]:
        found = []
        rows, contents = index.annotations_of(number, descriptor)
        entries = entries_of(contents)
        for place, row in enumerate(rows):
            try:
                entry = entries[place] if entries is not None else entry_of(contents[place])
                annotation = self.annotation(entry, width, height)
                checked, over = inside(annotation, width, height, mend=self.mend)
            except RowError as error:
                self.findings.fault(index.path, error.what, error.fix, row, code=error.code)
                continue
            if over > 0:
                words = f"{over:g} pixels outside of its picture, cut"
                self.findings.warn(words, code="outside", path=index.path, line=row, fix="Cut it to the picture.")
            found.append(checked)
        return tuple(found)

    def annotation(self, entry: CocoEntry, width: int, height: int) -> Annotation:
        """Raises RowError."""
        class_id = self.class_ids.get(entry.category_id)
        if class_id is None:
            raise RowError(f"category_id {shown(entry.category_id)} is not in `categories`", "Add it.", "class-id")
        task, ignore = self.info.task, bool(entry.iscrowd)
        box = box_of(entry.bbox)
        if task == IMAGE_SEGMENTATION:
            polygons, rle = mask_of(bytes(entry.segmentation), width, height)
            return Annotation(class_id, box or around(polygons, rle), polygons, rle, ignore=ignore)
        box = box or around(*mask_of(bytes(entry.segmentation), width, height))
        if task != KEYPOINT_DETECTION:
            return Annotation(class_id, box, ignore=ignore)
        return Annotation(class_id, box, keypoints=self.keypoints(entry.keypoints or []), ignore=ignore)

    def keypoints(self, values: list[float]) -> tuple[tuple[float, float, float], ...]:
        count = self.info.keypoints[0] if self.info.keypoints else 0
        if not values:
            return ((0.0, 0.0, 0.0),) * count
        if len(values) != 3 * count:
            raise RowError(
                f"{len(values)} keypoint numbers instead of {3 * count}", "Three for each: x, y, visibility."
            )
        if any(value not in (0, 1, 2) for value in values[2::3]):
            raise RowError(f"a visibility is not 0, 1 or 2: {values[2::3]}", "Three for each: x, y, visibility.")
        return tuple((values[i], values[i + 1], values[i + 2]) for i in range(0, 3 * count, 3))


def whole(value: float) -> int:
    return int(value) if math.isfinite(value) and 0 < value < 1 << 31 else 0


def open_coco(given: Path, task: str | None, findings: Findings, *, mend: bool) -> CocoSource:
    """See `Open`."""
    root = given.parent if given.is_file() else given
    if given.is_file() and root.name == "annotations":
        root = root.parent
    files = annotation_files(given, root, task)
    if not files:
        raise DatasetError(f"{shown(given)} has no COCO file.", "Name the folder that holds it, or the .json file.")
    indexes = {split: read_index(path, findings) for split, path in files.items()}
    categories = agreed_categories(indexes)
    classes = [category.name for category in categories]
    if twice := sorted({name for name in classes if classes.count(name) > 1}):
        findings.warn(f"`categories` names a class twice: {shown(', '.join(twice))}.", code="class-name")
    task = task or guess_task(indexes)
    keypoints: tuple[int, int] | None = None
    names: tuple[str, ...] = ()
    skeleton: Skeleton = ()
    if task == KEYPOINT_DETECTION:
        keypoints, names, skeleton = keypoints_of(categories, files)
    images = {split: images_of(root, split, path, indexes[split]) for split, path in files.items()}
    info = DatasetInfo(
        root,
        "coco",
        task,
        tuple(classes),
        images,
        {split: path.relative_to(root).as_posix() for split, path in files.items()},
        keypoints,
        flip_of(names),
        names,
        skeleton,
        also_held(indexes, task),
    )
    class_ids = {found.id: number for number, found in enumerate(categories)}
    return CocoSource(info, indexes, class_ids, findings, mend, Named(root, images, findings))


def recognise_coco(given: Path) -> str:
    if given.is_file():
        return "a COCO file" if given.suffix.lower() == ".json" and is_coco(given) else ""
    files = annotation_files(given, given, None)
    return str(next(iter(files.values())).relative_to(given)) if files else ""


def coco_writer(files: Files, info: DatasetInfo) -> DatasetWriter:
    return CocoWriter(files, info)


def split_hint(split: str) -> str:
    return f"Put pictures into {split}/ and their annotations into annotations/instances_{split}.json."


COCO = Format(
    name="coco",
    title="COCO: `annotations/instances_train.json`, `train/…`",
    reads=OBJECTS,
    writes=OBJECTS,
    recognise=recognise_coco,
    open=open_coco,
    writer=coco_writer,
    split_hint=split_hint,
)
