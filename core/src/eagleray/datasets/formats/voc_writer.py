"""Writes Pascal VOC: pictures, XML files, lists of each split, and masks where the task is segmentation."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

from eagleray.contract import DatasetError
from eagleray.contract.tasks import IMAGE_SEGMENTATION
from eagleray.datasets.formats.voc_masks import drawn, palette, save_mask
from eagleray.datasets.geometry import RowError
from eagleray.datasets.records import Annotation, DatasetInfo, ImageRecord
from eagleray.datasets.report import shown
from eagleray.datasets.writing import Files

OBJECT = (
    "  <object>\n    <name>{name}</name>\n    <pose>Unspecified</pose>\n    <truncated>0</truncated>\n"
    "    <difficult>{difficult}</difficult>\n    <bndbox>\n      <xmin>{0}</xmin>\n      <ymin>{1}</ymin>\n"
    "      <xmax>{2}</xmax>\n      <ymax>{3}</ymax>\n    </bndbox>\n  </object>\n"
)
HEAD = (
    "<annotation>\n  <folder>JPEGImages</folder>\n  <filename>{name}</filename>\n"
    "  <size>\n    <width>{width}</width>\n    <height>{height}</height>\n    <depth>3</depth>\n  </size>\n"
    "  <segmented>{segmented}</segmented>\n"
)


class VocWriter:
    """All pictures in one folder, so each needs a name of its own over all splits."""

    def __init__(self, files: Files, info: DatasetInfo) -> None:
        self.files, self.info = files, info
        self.masks = info.task == IMAGE_SEGMENTATION
        self.stems: dict[str, list[str]] = {split: [] for split in info.splits}
        for name in info.classes:
            # XML knows no control characters, and a label map one line a class.
            if not name.isprintable() or name != name.strip():
                raise DatasetError(f"The class '{shown(name)}' cannot stand in an XML file.", "Rename the class.")
        for folder in ("JPEGImages", "Annotations"):
            files.folder(folder)

    def write(self, record: ImageRecord) -> None:
        name = self.files.claim("JPEGImages", record.name, flat=True)
        stem = name.rpartition(".")[0]
        self.files.place(record.path, f"JPEGImages/{name}")
        self.stems[record.split].append(stem)
        if not record.labelled:
            return
        if self.masks:
            self.write_masks(record, stem)
        objects = "".join(map(self.element, record.annotations))
        head = HEAD.format(name=escape(name), width=record.width, height=record.height, segmented=int(self.masks))
        self.files.write_text(f"Annotations/{stem}.xml", f"{head}{objects}</annotation>\n")

    def element(self, found: Annotation) -> str:
        box = [f"{round(value, 6):.10g}" for value in found.box or ()]
        return OBJECT.format(*box, name=escape(self.info.classes[found.class_id]), difficult=int(found.ignore))

    def write_masks(self, record: ImageRecord, stem: str) -> None:
        try:
            pictures = drawn(record.annotations, (record.width, record.height))
        except RowError as error:
            raise DatasetError(f"{shown(record.name)}: {error.what}.", error.fix) from None
        for kind, pixels in zip(("SegmentationClass", "SegmentationObject"), pictures, strict=True):
            save_mask(pixels, Path(self.files.folder(kind), f"{stem}.png"))

    def close(self) -> None:
        kinds = ("Main", "Segmentation") if self.masks else ("Main",)
        for split, stems in self.stems.items():
            for kind in kinds:
                self.files.write_text(f"ImageSets/{kind}/{split}.txt", "".join(f"{stem}\n" for stem in stems))
        colours = palette()
        lines = ["background:0,0,0::"]
        for number, name in enumerate(self.info.classes, start=1):
            red, green, blue = (colours[3 * (number % 256) + place] for place in range(3))
            lines.append(f"{name}:{red},{green},{blue}::")
        self.files.write_text("labelmap.txt", "\n".join(lines) + "\n")
