"""Where each picture's annotations lie in a COCO file: sixteen bytes an annotation, the file itself stays on disk."""

from __future__ import annotations

import json
import os
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from eagleray.contract import DatasetError
from eagleray.datasets.formats.json_stream import Batch, JsonStream
from eagleray.datasets.report import Findings, is_text, shown

Id = int | str
FIX = "Look at that entry in the file; docs/datasets.md says what each key holds."
# Annotations of one picture that lie this close together are read at once.
NEAR = 1 << 16
# A hundred thousand classes and more; all of them are held in memory.
MAX_CATEGORY_BYTES = 8 << 20


class CocoImage(msgspec.Struct, gc=False):
    """An entry of `images`."""

    id: Id
    file_name: str
    width: int | float = 0
    height: int | float = 0


class CocoCategory(msgspec.Struct, gc=False):
    """An entry of `categories`."""

    id: Id
    name: str
    supercategory: str | None = None
    keypoints: list[str] | None = None
    skeleton: list[tuple[int, int]] | None = None


class CocoKey(msgspec.Struct, gc=False):
    """What the index needs of an entry of `annotations`."""

    image_id: Id
    id: Id = 0
    segmentation: msgspec.Raw = msgspec.Raw(b"[]")
    keypoints: msgspec.Raw = msgspec.Raw(b"[]")


Entry = TypeVar("Entry", CocoImage, CocoCategory, CocoKey)
NOTHING = (b"[]", b"null", b"{}")
LONGEST_NOTHING = max(map(len, NOTHING))


@dataclass
class CocoIndex:
    """One annotation file.

    Attributes:
        order: numbers of the annotations in the file (from 0), grouped by picture.
        first: `first[i]:first[i + 1]` are picture i's places in `order`.
        outlined, posed: how many annotations have a segmentation, or keypoints.
    """

    path: Path
    images: list[CocoImage]
    categories: list[CocoCategory]
    offsets: array[int]
    lengths: array[int]
    order: Any
    first: Any
    outlined: int
    posed: int

    def annotations_of(self, number: int, descriptor: int) -> tuple[list[int], list[bytes]]:
        """Rows (from 1) and bytes of the annotations of picture `number`, in the file's order."""
        rows = self.order[self.first[number] : self.first[number + 1]].tolist()
        if not rows:
            return [], []
        offsets, lengths = self.offsets, self.lengths
        start = offsets[rows[0]]
        size = offsets[rows[-1]] + lengths[rows[-1]] - start
        if size <= NEAR:
            together = os.pread(descriptor, size, start)
            contents = [together[offsets[row] - start : offsets[row] - start + lengths[row]] for row in rows]
        else:
            contents = [os.pread(descriptor, lengths[row], offsets[row]) for row in rows]
        return [row + 1 for row in rows], contents


@dataclass
class Building:
    """An index while it is read."""

    path: Path
    findings: Findings
    images: list[CocoImage] = field(default_factory=list)
    categories: list[CocoCategory] = field(default_factory=list)
    numbers: dict[Id, int] = field(default_factory=dict)
    known: set[Id] = field(default_factory=set)
    offsets: array[int] = field(default_factory=lambda: array("Q"))
    lengths: array[int] = field(default_factory=lambda: array("I"))
    owners: array[int] = field(default_factory=lambda: array("I"))
    ids: array[int] = field(default_factory=lambda: array("q"))
    outlined: int = 0
    posed: int = 0
    category_bytes: int = 0

    def number(self, image_id: Id) -> int:
        """A picture's place among the ids seen, whichever of `images` and `annotations` comes first in the file."""
        return self.numbers.setdefault(image_id, len(self.numbers))

    def add_images(self, batch: Batch, row: int) -> int:
        for offset, image in enumerate(entries(batch, CocoImage, "images", row, self)):
            if image is None:
                continue
            if image.id in self.known:
                what = f"images[{row + offset}]: the id {shown(image.id)} a second time"
                self.findings.fault(self.path, what, "Give every picture its own id.", code="id-repeated")
                continue
            self.known.add(image.id)
            self.number(image.id)
            self.images.append(image)
        return row + count_of(batch)

    def add_categories(self, batch: Batch, row: int) -> int:
        self.category_bytes += len(batch.text)
        if self.category_bytes > MAX_CATEGORY_BYTES:
            raise DatasetError(
                f"{shown(self.path)}: `categories` is longer than {MAX_CATEGORY_BYTES} bytes.", "Name the classes only."
            )
        for offset, found in enumerate(entries(batch, CocoCategory, "categories", row, self)):
            if found is not None:
                self.categories.append(self.named(found, row + offset))
        return row + count_of(batch)

    def named(self, category: CocoCategory, row: int) -> CocoCategory:
        """With names that can be written; where one cannot, that is noted and it is escaped."""
        names = [category.name, *(category.keypoints or ())]
        if all(map(is_text, names)):
            return category
        what = f"categories[{row}]: the name {shown(', '.join(names), 80)} is not UTF-8 text"
        self.findings.fault(self.path, what, "Rename it.", row + 1, code="class-name")
        name, *keypoints = (text.encode("utf-8", "backslashreplace").decode("utf-8") for text in names)
        return CocoCategory(category.id, name, category.supercategory, keypoints or None, category.skeleton)

    def add_annotations(self, batch: Batch, row: int) -> int:
        keys = entries(batch, CocoKey, "annotations", row, self)
        offsets, lengths = batch.spans()
        self.offsets.extend(offsets)
        self.lengths.extend(lengths)
        # `number`, without a call for each of millions; a row that cannot be placed stays in the count of rows, with a
        # picture that is nobody's.
        of, numbers = self.numbers.setdefault, self.numbers
        self.owners.extend([of("" if key is None else key.image_id, len(numbers)) for key in keys])
        known = [key for key in keys if key is not None]
        self.ids.extend([key.id for key in known if isinstance(key.id, int) and -(2**63) <= key.id < 2**63])
        # By the length first, which is to be had without a copy.
        for key in known:
            if len(key.segmentation) > LONGEST_NOTHING or bytes(key.segmentation) not in NOTHING:
                self.outlined += 1
            if len(key.keypoints) > LONGEST_NOTHING or bytes(key.keypoints) not in NOTHING:
                self.posed += 1
        return row + len(keys)

    def done(self) -> CocoIndex:
        self._check_ids()
        owners = np.frombuffer(self.owners, dtype=np.uintc)
        place = np.full(len(self.numbers), len(self.images), dtype=np.int64)
        place[[self.numbers[image.id] for image in self.images]] = np.arange(len(self.images))
        by_image = place[owners]
        order = np.argsort(by_image, kind="stable").astype(np.uint32)
        counts = np.bincount(by_image, minlength=len(self.images) + 1)
        first = np.concatenate([[0], np.cumsum(counts)])
        self._check_owners(order[first[len(self.images)] :], owners)
        return CocoIndex(
            self.path, self.images, self.categories, self.offsets, self.lengths, order, first, self.outlined, self.posed
        )

    def _check_ids(self) -> None:
        ids = np.sort(np.frombuffer(self.ids, dtype=np.int64)) if self.ids else np.zeros(0, np.int64)
        # Annotations without an id all have 0, which is the reader's default and no repetition.
        repeated = np.unique(ids[1:][(ids[1:] == ids[:-1]) & (ids[1:] != 0)])
        if len(repeated):
            words = f"{len(repeated)} annotation ids are there twice, for example {repeated[0]}; every one is read"
            self.findings.warn(words, code="id-repeated", path=self.path, fix="Number the annotations from 1.")

    def _check_owners(self, lost: Any, owners: Any) -> None:
        names = {number: image_id for image_id, number in self.numbers.items()}
        for row in lost.tolist():
            image_id = names[int(owners[row])]
            if image_id != "":
                what = f"no picture has the id {shown(image_id)}"
                fix = "Add the picture to `images`, or remove the annotation."
                self.findings.fault(self.path, what, fix, row + 1, code="label-orphan")


def entries(batch: Batch, kind: type[Entry], key: str, row: int, building: Building) -> list[Entry | None]:
    """The elements of a batch; None in the place of one that is not of this kind, which is noted."""
    if batch.raws is not None:
        try:
            return list(msgspec.json.decode(batch.text, type=list[kind]))  # type: ignore[valid-type]
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            pass
    found: list[Entry | None] = []
    for number, raw in enumerate(batch.raws or [batch.text[1:-1]]):
        try:
            found.append(lenient(bytes(raw), kind))
        except (ValueError, msgspec.MsgspecError, RecursionError) as error:
            what = f"{key}[{row + number}]: {shown(error, 120)}"
            building.findings.fault(building.path, what, FIX, row + number + 1)
            found.append(None)
    return found


def lenient(content: bytes, kind: Any) -> Any:
    """An entry by strict JSON, else by Python's, which also knows `NaN`. Raises ValueError, RecursionError."""
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        plain = json.loads(content)
        if isinstance(plain, dict):
            # Only what the kind names: what else is there may be anything.
            plain = {
                name: msgspec.Raw(json.dumps(value).encode()) if kind.__annotations__[name] == "msgspec.Raw" else value
                for name, value in plain.items()
                if name in kind.__annotations__
            }
        return msgspec.convert(plain, kind)


def count_of(batch: Batch) -> int:
    return 1 if batch.raws is None else len(batch.raws)


def read_index(path: Path, findings: Findings) -> CocoIndex:
    """Read all of the file once. Raises DatasetError where it is not JSON or not COCO."""
    building = Building(path, findings)
    lists = {
        "images": building.add_images,
        "annotations": building.add_annotations,
        "categories": building.add_categories,
    }
    missing = dict.fromkeys(lists)
    try:
        with JsonStream(path) as stream:
            if stream.marked:
                words = "a byte-order mark, which some readers stumble over"
                findings.warn(words, code="file-encoding", path=path, fix="Save it as UTF-8 without it.")
            for key in stream.keys():  # noqa: SIM118 - a stream of keys, not a mapping
                if key not in lists:
                    stream.skip()
                    continue
                if key not in missing:
                    raise DatasetError(f"{shown(path)} has `{key}` a second time.", "Keep one of the two.")
                del missing[key]
                row = 0
                for batch in stream.batches():
                    row = lists[key](batch, row)
    except OSError as error:
        raise DatasetError(f"{shown(path)} cannot be read: {error.strerror}.") from None
    if missing:
        raise DatasetError(
            f"{shown(path)} has no {' and no '.join(f'`{key}`' for key in missing)}.",
            "A COCO file has `images`, `annotations` and `categories`.",
        )
    return building.done()
