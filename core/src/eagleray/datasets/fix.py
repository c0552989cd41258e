"""A mended copy of a dataset: what can be put right is, what cannot is left out, and both are counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import msgspec
from PIL import Image, ImageOps
from pydantic import BaseModel

from eagleray.contract import DatasetError
from eagleray.datasets.convert import refuse, static_losses
from eagleray.datasets.formats import format_named
from eagleray.datasets.images import FORMATS, KINDS, Picture, inspected
from eagleray.datasets.read import open_dataset
from eagleray.datasets.records import DatasetSource, ImageRecord
from eagleray.datasets.report import Findings, Severity, shown
from eagleray.datasets.validate import Twins, ValidationReport, validate
from eagleray.datasets.writing import Files, new_folder

DONE = {
    "image-unreadable": "pictures that cannot be read left out, with their labels",
    "image-too-large": "pictures that are too large left out, with their labels",
    "image-size": "pictures of another size than their labels left out",
    "image-mislabelled": "pictures given the suffix of their content",
    "image-orientation": "pictures stored upright",
    "image-duplicate": "training pictures that are also in another split left out",
    "row-repeated": "repeated annotations left out",
    "rows": "annotations or rows left out because they cannot be read or lie outside",
    "outside": "annotations cut to their picture",
}


class FixReport(BaseModel):
    """What was done, and what is found in the copy.

    Attributes:
        done: sentences with counts.
        report: the copy's own validation; what could not be mended stands there.
    """

    path: Path
    done: tuple[str, ...]
    report: ValidationReport


def fix(report: ValidationReport, into: str | Path, *, allow_loss: bool = False) -> FixReport:
    """Write a mended copy of the dataset that `report` is about into the new folder `into`, in its own format.

    Boxes and outlines are cut to their picture; rows that cannot be read, pictures that cannot be decoded and training
    pictures that also are in another split are left out; suffixes follow the content; EXIF orientation becomes pixels;
    text becomes UTF-8. The dataset itself is not touched.

    Args:
        allow_loss: leave out what the report's task has no place for, masks beside boxes say.

    Raises:
        DatasetError: nothing of it can be read, or something would be lost.
    """
    source, findings = open_dataset(report.path, report.task or None, report.format or None, mend=True)
    lost = static_losses(source.info, source.info.task, format_named(source.info.format))
    refuse(lost, allow_loss)
    target = Path(into).expanduser().absolute()
    with new_folder(target) as folder:
        writer_of = format_named(source.info.format).writer
        with Files(folder) as files, closing(writer_of(files, source.info)) as writer:
            mending = Mending(source, files)
            for split in reversed(source.info.splits):
                for record in mending.mended(source.records(split)):
                    writer.write(record)
        if not mending.kept:
            raise DatasetError(f"Nothing of {shown(report.path)} can be mended.", "See the report's errors.")
    mending.count_rows(findings)
    done = (*(f"{count} {DONE[code]}" for code, count in sorted(mending.done.items())), *lost)
    return FixReport(path=target, done=done, report=validate(target, source.info.task, source.info.format))


@dataclass
class Mending:
    """Puts records right one by one. Splits come last first, so that a duplicate is taken from `train`."""

    source: DatasetSource
    files: Files
    done: Counter[str] = field(default_factory=Counter)
    kept: int = 0
    upright: dict[Path, Picture] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.twins = Twins(Findings(self.source.info.root))
        self.files.on_place = self.place

    def mended(self, records: Iterable[ImageRecord]) -> Iterator[ImageRecord]:
        for record, picture in inspected(records):
            if reason := self.reason_against(record, picture):
                self.done[reason] += 1
                continue
            self.kept += 1
            yield self.put_right(record, picture)

    def reason_against(self, record: ImageRecord, picture: Picture) -> str:
        """The kind of fault for which the picture is left out; empty where it stays."""
        if picture.fault:
            return picture.code
        size = (record.width, record.height)
        if record.width and size not in (picture.displayed, (picture.width, picture.height)):
            return "image-size"
        twin = self.twins.twin_of(record.path, record.split)
        return "image-duplicate" if twin and twin[1] != record.split else ""

    def put_right(self, record: ImageRecord, picture: Picture) -> ImageRecord:
        name = PurePosixPath(record.name)
        if name.suffix.lower() not in KINDS[picture.kind]:
            self.done["image-mislabelled"] += 1
            name = name.with_suffix(KINDS[picture.kind][0])
        if picture.orientation != 1:
            self.done["image-orientation"] += 1
            self.upright[record.path] = picture
        unique = tuple(dict.fromkeys(record.annotations))
        if not record.annotations or not record.annotations[0].turns:
            self.done["row-repeated"] += len(record.annotations) - len(unique)
        return msgspec.structs.replace(record, name=name.as_posix(), annotations=unique)

    def place(self, source: Path, target: Path) -> bool:
        """Store a turned picture upright; any other is linked."""
        if (picture := self.upright.pop(source, None)) is None:
            return False
        with Image.open(source, formats=FORMATS) as image:
            turned = ImageOps.exif_transpose(image)
            also = {"quality": 95} if picture.kind == "JPEG" else {}
            turned.save(target, picture.kind, **also)
        return True

    def count_rows(self, findings: Findings) -> None:
        """What the source itself left out or cut while it was read."""
        pictures = {"image-unreadable", "image-too-large"}
        for (severity, code), count in findings.counts.items():
            if code in pictures:
                self.done[code] += count
            elif severity is Severity.ERROR:
                self.done["rows"] += count
            elif code == "outside":
                self.done["outside"] += count
        self.done = Counter({code: count for code, count in self.done.items() if count})
