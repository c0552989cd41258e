"""Image folders: `train/<class>/*.jpg` and `val/<class>/*.jpg`, as torchvision and Ultralytics read them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from eagleray.contract import DatasetError
from eagleray.contract.tasks import IMAGE_CLASSIFICATION
from eagleray.datasets.formats.base import Format
from eagleray.datasets.formats.description import FOLDERS
from eagleray.datasets.images import SUFFIXES, find_images
from eagleray.datasets.records import Annotation, DatasetInfo, DatasetWriter, ImageRecord
from eagleray.datasets.report import Findings, is_text, listed, shown
from eagleray.datasets.writing import SPLIT_FOLDERS, Files

LAYOUT = "The layout is train/<class>/… and valid/<class>/…, one folder for each class."
OTHER_LAYOUTS = frozenset({"images", "labels", "annotations", "Annotations", "JPEGImages", "SegmentationClass"})


@dataclass(frozen=True)
class FolderSource:
    """A folder for each class in a folder for each split."""

    info: DatasetInfo
    findings: Findings

    def records(self, split: str) -> Iterator[ImageRecord]:
        """Every split must have every class: frameworks number each split's folders, so one missing shifts the rest."""
        folder = self.info.root / self.info.images[split]
        findings, present = self.findings, class_folders(folder)
        alike = "Every split must have the same classes."
        for name in sorted(set(present) - set(self.info.classes)):
            what = "a class that train does not have" if is_text(name) else "the class's name is not UTF-8 text"
            findings.fault(folder / name, what, alike if is_text(name) else "Rename the folder.", code="class-id")
        loose = [path.name for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
        if loose:
            words = f"Ignored, because outside the class folders of {folder.name}: {listed(loose)}."
            findings.warn(words, code="file-ignored")
        for class_id, name in enumerate(self.info.classes):
            if name not in present:
                findings.fault(folder / name, "class missing in this split", alike, code="class-empty")
                continue
            images = find_images(folder / name, findings)
            if not images:
                fix = "Add pictures, or remove the class everywhere."
                findings.fault(folder / name, "no picture of this class", fix, code="class-empty")
            for path in images:
                yield ImageRecord(path.relative_to(folder).as_posix(), path, 0, 0, split, (Annotation(class_id),))


def open_imagefolder(
    given: Path, task: str | None, findings: Findings, *, mend: bool, name: str = "imagefolder"
) -> FolderSource:
    """See `Open`. A folder of class folders without any split is one training split."""
    folders = split_folders(given)
    if not folders:
        if "train" in {path.name for path in given.iterdir()} or not class_folders(given):
            raise DatasetError(f"The dataset {shown(given)} has no train split.", LAYOUT)
        folders = {"train": "."}
    first = given / next(iter(folders.values()))
    classes = tuple(name for name in class_folders(first) if is_text(name))
    if not classes:
        raise DatasetError(f"{shown(first)} has no class folders.", LAYOUT)
    if set(classes) <= {"images", "labels"}:
        raise DatasetError(
            f"{shown(first)} holds images/ and labels/, the layout of detection datasets.",
            f"{LAYOUT} For the dataset as it is, use --task object-detection.",
        )
    return FolderSource(DatasetInfo(given, name, IMAGE_CLASSIFICATION, classes, folders), findings)


def split_folders(root: Path) -> dict[str, str]:
    return {
        split: found
        for split, names in FOLDERS.items()
        if (found := next((name for name in names if (root / name).is_dir()), None))
    }


def class_folders(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")))


class FolderWriter:
    """`train/<class>/…`; a class's folder is made in every split, also where no picture is in it."""

    def __init__(self, files: Files, info: DatasetInfo, *, val: str = SPLIT_FOLDERS["val"]) -> None:
        self.files, self.info = files, info
        self.folders = {split: val if split == "val" else SPLIT_FOLDERS[split] for split in info.splits}
        for name in info.classes:
            if (
                name in {"", ".", ".."}
                or name.startswith(".")
                or "/" in name
                or "\0" in name
                or len(name.encode()) > 255
            ):
                raise DatasetError(f"The class '{shown(name)}' cannot name a folder.", "Rename the class.")
            for folder in self.folders.values():
                files.folder(f"{folder}/{name}")

    def write(self, record: ImageRecord) -> None:
        for found in record.annotations:
            place = f"{self.folders[record.split]}/{self.info.classes[found.class_id]}"
            # The class's own folder is made anew, so it is not part of the name.
            name = record.name.removeprefix(f"{self.info.classes[found.class_id]}/")
            self.files.place(record.path, f"{place}/{self.files.claim(place, name, flat=True)}")

    def close(self) -> None:
        return None


def recognise_imagefolder(given: Path) -> str:
    """A folder of pictures in a split's folder; without splits, unless other layouts' folders lie there."""
    if not given.is_dir():
        return ""
    for folder in [given / name for name in split_folders(given).values()] or [given]:
        classes = class_folders(folder)
        if OTHER_LAYOUTS.isdisjoint(classes):
            for name in classes:
                if has_picture(folder / name):
                    return f"pictures in {(folder / name).relative_to(given).as_posix()}/"
    return ""


def has_picture(folder: Path) -> bool:
    return any(path.suffix.lower() in SUFFIXES for path in folder.iterdir())


def folder_writer(files: Files, info: DatasetInfo) -> DatasetWriter:
    return FolderWriter(files, info)


def split_hint(split: str) -> str:
    return LAYOUT + (" For validation, move a fifth of the training pictures, say." if split == "val" else "")


IMAGEFOLDER = Format(
    name="imagefolder",
    title="image folders: `train/<class>/…`",
    reads=(IMAGE_CLASSIFICATION,),
    writes=(IMAGE_CLASSIFICATION,),
    recognise=recognise_imagefolder,
    open=open_imagefolder,
    writer=folder_writer,
    split_hint=split_hint,
)
