"""Pascal VOC: one XML file for each picture, and masks as indexed PNG files beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from eagleray.contract import DatasetError
from eagleray.contract.tasks import IMAGE_SEGMENTATION, OBJECT_DETECTION
from eagleray.datasets.formats.base import BOXES, Format
from eagleray.datasets.formats.description import FOLDERS
from eagleray.datasets.formats.voc_files import (
    MAX_BYTES,
    XML_FIX,
    Item,
    images_of,
    items,
    masked,
    number,
    read_xml,
    text_of,
    xml_and_masks,
)
from eagleray.datasets.formats.voc_masks import annotations_of_masks
from eagleray.datasets.formats.voc_writer import VocWriter
from eagleray.datasets.geometry import RowError, inside
from eagleray.datasets.images import FIX, header
from eagleray.datasets.places import Named
from eagleray.datasets.records import Annotation, DatasetInfo, DatasetWriter, ImageRecord
from eagleray.datasets.report import Findings, shown
from eagleray.datasets.writing import Files

LABEL_MAP = "labelmap.txt"
# What labelmap.txt and the field's tools call pixels that are nobody's.
BACKGROUND = frozenset({"background", "__background__", "_background_", "void", "__ignore__"})


@dataclass
class VocSource:
    """XML files beside pictures, or the folders of the original (`JPEGImages`, `Annotations`, `ImageSets`)."""

    info: DatasetInfo
    findings: Findings
    mend: bool
    named: Named | None = None
    _ids: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self._ids = {name: number for number, name in enumerate(self.info.classes)}

    def records(self, split: str) -> Iterator[ImageRecord]:
        root = self.info.root
        folder = root / self.info.images[split]
        names: set[str] = set()
        for item in items(root, split, self.info.images[split], self.findings):
            if item.image is None:
                place = item.xml or root / "Annotations" / f"{item.stem}.xml"
                fix = "Add the picture, or remove the file."
                self.findings.fault(place, "no picture of this name", fix, code="label-orphan")
                continue
            picture = header(item.image)
            if picture.fault:
                self.findings.fault(item.image, picture.fault, FIX, code=picture.code)
                continue
            size = picture.displayed
            masked = self.info.task == IMAGE_SEGMENTATION
            found = self.masks(item, size) if masked else self.boxes(item.xml, size)
            labelled = (item.classes or item.instances) if masked else item.xml
            name = item.image.relative_to(folder).as_posix()
            names.add(name)
            yield ImageRecord(name, item.image, *size, split, found, labelled is not None)
        if self.named is not None:
            self.named.read(split, names)

    def boxes(self, path: Path | None, size: tuple[int, int]) -> tuple[Annotation, ...]:
        if path is None or (tree := read_xml(path, self.findings)) is None:
            return ()
        self.check_size(tree, size, path)
        found = []
        for row, element in enumerate(tree.iter("object"), start=1):
            try:
                annotation, over = inside(self.annotation(element), *size, mend=self.mend)
            except RowError as error:
                self.findings.fault(path, error.what, error.fix, row, code=error.code)
                continue
            if over > 0:
                words = f"{over:g} pixels outside of its picture, cut"
                self.findings.warn(words, code="outside", path=path, line=row, fix="Cut it to the picture.")
            found.append(annotation)
        return tuple(found)

    def annotation(self, element: Element) -> Annotation:
        name = text_of(element, "name")
        if name not in self._ids:
            raise RowError(
                f"the class '{shown(name)}' is not one of the dataset's", "Add it to labelmap.txt.", "class-id"
            )
        box = element.find("bndbox")
        if box is None:
            raise RowError("an object without `bndbox`", XML_FIX)
        x1, y1, x2, y2 = (number(box, tag) for tag in ("xmin", "ymin", "xmax", "ymax"))
        return Annotation(self._ids[name], (x1, y1, x2, y2), ignore=text_of(element, "difficult") == "1")

    def check_size(self, tree: Element, size: tuple[int, int], path: Path) -> None:
        element = tree.find("size")
        if element is None:
            return
        try:
            said = (int(number(element, "width")), int(number(element, "height")))
        except (RowError, ValueError, OverflowError):
            return
        # Zeros are what some programs write where they did not look.
        if said not in (size, (0, 0)):
            words = f"says {said[0]} x {said[1]} pixels, the picture has {size[0]} x {size[1]}"
            self.findings.fault(path, words, "Annotate the picture that is there.", code="image-size")

    def masks(self, item: Item, size: tuple[int, int]) -> tuple[Annotation, ...]:
        try:
            return annotations_of_masks(item.classes, item.instances, size, len(self.info.classes))
        except RowError as error:
            place = item.classes or item.instances or self.info.root
            self.findings.fault(place, error.what, error.fix, code=error.code)
            return ()


def open_voc(given: Path, task: str | None, findings: Findings, *, mend: bool) -> VocSource:
    """See `Open`."""
    root = given
    images = {split: folder for split in FOLDERS if (folder := images_of(root, split)) is not None}
    if not images:
        raise DatasetError(f"The dataset {shown(root)} has no train split.", split_hint("train"))
    described, both = xml_and_masks(root, images.values())
    # As this package writes it, a set of masks has XML files as well; of the original's pictures a few have masks.
    task = task or (IMAGE_SEGMENTATION if masked(root) and both == described else OBJECT_DETECTION)
    if task == IMAGE_SEGMENTATION and not masked(root):
        raise DatasetError(
            f"{shown(root)} has no masks in SegmentationClass/, so it is of boxes.", "Use --task object-detection."
        )
    classes = named_classes(root) or found_classes(root, images, task, findings)
    if not classes:
        raise DatasetError(f"{shown(root)} names no class.", XML_FIX)
    labels = dict.fromkeys(images, "Annotations" if (root / "Annotations").is_dir() else ".")
    also_holds = {}
    if task == IMAGE_SEGMENTATION and both < described:
        also_holds[OBJECT_DETECTION] = f"the boxes of {described - both} pictures without a mask"
    elif task != IMAGE_SEGMENTATION and masked(root):
        also_holds[IMAGE_SEGMENTATION] = f"the masks of {both} of {described} pictures"
    info = DatasetInfo(root, "voc", task, classes, images, labels, also_holds=also_holds)
    # Beside their XML files, all pictures are read; of the original's, those that are listed.
    named = Named(root, images, findings) if "JPEGImages" in images.values() else None
    return VocSource(info, findings, mend, named)


def named_classes(root: Path) -> tuple[str, ...]:
    """From labelmap.txt: `name:r,g,b:parts:actions` or just the name, one a line."""
    path = root / LABEL_MAP
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        return ()
    lines = path.read_bytes().decode("utf-8-sig", "replace").splitlines()
    # From the right: a class may have a colon in its name, the three fields after it have none.
    names = [line.rsplit(":", 3)[0].strip() for line in lines if line.strip() and not line.startswith("#")]
    return tuple(dict.fromkeys(name for name in names if name and name.lower() not in BACKGROUND))


def found_classes(root: Path, images: dict[str, str], task: str, findings: Findings) -> tuple[str, ...]:
    """The classes of all objects, by name; of masks, by number."""
    silent = Findings(root)
    found: set[str] = set()
    top = 0
    for split, folder in images.items():
        for item in items(root, split, folder, silent):
            if item.xml and (tree := read_xml(item.xml, silent)) is not None:
                found.update(text_of(element, "name") for element in tree.iter("object"))
            if task == IMAGE_SEGMENTATION and item.classes:
                top = max(top, highest(item.classes))
    names = tuple(sorted(found - {""}))
    if not top:
        return names
    if len(names) == top:
        # The original numbers its classes in the order of their names.
        words = "There is no labelmap.txt, so the classes of the masks are those of the XML files, by name."
        findings.warn(words, code="description")
        return names
    findings.warn("There is no labelmap.txt, so the classes of the masks are numbers.", code="description")
    return tuple(f"class-{number}" for number in range(1, top + 1))


def highest(path: Path) -> int:
    """The highest class number in a mask; 0 where it cannot be read."""
    try:
        found: Any = annotations_of_masks(path, None, header(path).displayed, 254)
    except RowError:
        return 0
    return max((annotation.class_id + 1 for annotation in found), default=0)


def recognise_voc(given: Path) -> str:
    if not given.is_dir():
        return ""
    for pattern in ("Annotations/*.xml", "train/*.xml", "valid/*.xml", "*.xml", "SegmentationClass/*.png"):
        for path in given.glob(pattern):
            if path.suffix == ".png" or b"<annotation" in path.read_bytes()[:1024]:
                return path.relative_to(given).as_posix()
            break
    return ""


def voc_writer(files: Files, info: DatasetInfo) -> DatasetWriter:
    return VocWriter(files, info)


def split_hint(split: str) -> str:
    return f"List the names of its pictures, one a line, in ImageSets/Main/{split}.txt."


VOC = Format(
    name="voc",
    title="Pascal VOC: `JPEGImages`, `Annotations`, `ImageSets`, `SegmentationClass`, `SegmentationObject`",
    reads=(*BOXES, IMAGE_SEGMENTATION),
    writes=(*BOXES, IMAGE_SEGMENTATION),
    recognise=recognise_voc,
    open=open_voc,
    writer=voc_writer,
    split_hint=split_hint,
)
