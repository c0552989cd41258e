"""DICE and Ultralytics' own layout: `data.yaml`, and for each split `images/` and `labels/` paired by stem.

The two differ only in where a writer puts a split: `train/images` (DICE) or `images/train` (YOLO); both are read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from eagleray.contract.tasks import IMAGE_SEGMENTATION, KEYPOINT_DETECTION, OBJECT_DETECTION
from eagleray.datasets.formats.base import OBJECTS, Format
from eagleray.datasets.formats.description import FOLDERS, Description, images_below, read_description
from eagleray.datasets.formats.rows import RowShape, label_lines, read_labels
from eagleray.datasets.formats.yolo_rows import row_of
from eagleray.datasets.images import FIX, find_images, header, walk
from eagleray.datasets.records import DatasetInfo, DatasetWriter, ImageRecord
from eagleray.datasets.report import Findings, shown
from eagleray.datasets.writing import SPLIT_FOLDERS, Files

# Files that labelling programs leave beside the labels.
NOT_LABELS = {"classes.txt", "labels.txt", "notes.json", "readme.txt"}
YAML_SUFFIXES = frozenset({".yaml", ".yml"})
# What JSON leaves as it is and YAML does not print.
UNPRINTED = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


@dataclass(frozen=True)
class Pairing:
    """One split's pictures in order, each with its label file or None."""

    images: list[Path]
    labels: list[Path | None]


@dataclass(frozen=True)
class DiceSource:
    """A dataset with a `data.yaml`."""

    info: DatasetInfo
    findings: Findings
    mend: bool

    def records(self, split: str) -> Iterator[ImageRecord]:
        info = self.info
        images, labels = (info.root / folders[split] for folders in (info.images, info.annotations))
        shape = RowShape(len(info.classes), info.keypoints)
        pairing = pair(images, labels, self.findings)
        for path, label in zip(pairing.images, pairing.labels, strict=True):
            picture = header(path)
            if picture.fault:
                self.findings.fault(path, picture.fault, FIX, code=picture.code)
                continue
            size = picture.displayed
            found = read_labels(label, info.task, shape, size, self.findings, mend=self.mend) if label else ()
            name = path.relative_to(images).as_posix()
            yield ImageRecord(name, path, *size, split, found, label is not None)


def open_dice(given: Path, task: str | None, findings: Findings, *, mend: bool, name: str = "dice") -> DiceSource:
    """See `Open`; `name` is the format that was recognised."""
    root, path = (given.parent, given) if given.is_file() else (given, description_in(given))
    described = read_description(path, findings)
    folders = {
        split: folder for split in FOLDERS if (folder := described.images_folder(split, root, findings)) is not None
    }
    labels = {split: labels_folder(folder) for split, folder in folders.items()}
    task = task or guess_task(described, [root / folder for folder in labels.values()])
    keypoints: tuple[int, int] | None = None
    flip_index: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    if task == KEYPOINT_DETECTION:
        keypoints = described.keypoints()
        flip_index = described.flip_index(keypoints[0], findings)
        names = described.keypoint_names(keypoints[0])
    if "train" in folders and folders["train"] == folders.get("val"):
        sentence = "Validation pictures are the training pictures, so metrics say nothing of new ones."
        findings.warn(sentence, code="split-shared")
    info = DatasetInfo(root, name, task, described.classes, folders, labels, keypoints, flip_index, names)
    return DiceSource(info, findings, mend)


def description_in(root: Path) -> Path:
    """`data.yaml`, else the only YAML file of the folder."""
    usual = root / "data.yaml"
    if usual.is_file() or not root.is_dir():
        return usual
    found = sorted(path for path in root.iterdir() if path.suffix.lower() in YAML_SUFFIXES and path.is_file())
    return found[0] if len(found) == 1 else usual


def guess_task(described: Description, labels: list[Path]) -> str:
    """By `kpt_shape`, else by the number of columns of the first row that is found."""
    if "kpt_shape" in described.content:
        return KEYPOINT_DETECTION
    silent = Findings(described.path.parent)
    for folder in labels:
        for path in walk(folder):
            if path.suffix == ".txt" and path.name.lower() not in NOT_LABELS:
                for _, row in label_lines(path, silent):
                    return OBJECT_DETECTION if len(row.split()) <= 5 else IMAGE_SEGMENTATION
    return OBJECT_DETECTION


def labels_folder(images: str) -> str:
    """`labels` in the place of the last `images`, as every framework that reads this layout does."""
    parts = list(PurePosixPath(images).parts)
    last = len(parts) - 1 - parts[::-1].index("images")
    parts[last] = "labels"
    return PurePosixPath(*parts).as_posix()


def pair(images_folder: Path, labels_folder: Path, findings: Findings) -> Pairing:
    """Pair by place and stem (all before the last dot), exactly as written: no letter case, no Unicode form is bent.

    A framework opens `labels/a.b.txt` for `images/a.b.jpg` and nothing else, so what does not match exactly is a
    fault here instead of a label lost in silence there.
    """
    images = find_images(images_folder, findings)
    stems: dict[Path, Path] = {}
    for path in images:
        stem = path.relative_to(images_folder).with_suffix("")
        if stem in stems:
            fix = "Rename or remove one: both would take the same label file."
            what = f"same name as {shown(stems[stem].name)} but for the suffix"
            findings.fault(path, what, fix, code="image-name")
        stems[stem] = path
    labels: dict[Path, Path] = {}
    for path in walk(labels_folder):
        if path.suffix.lower() != ".txt":
            continue
        stem = path.relative_to(labels_folder).with_suffix("")
        if path.suffix != ".txt":
            what = "frameworks look for the suffix .txt in small letters"
            findings.fault(path, what, "Rename the label files.", code="label-orphan")
        elif stem in stems:
            labels[stem] = path
        elif path.name.lower() not in NOT_LABELS:
            orphan(path, stem, stems, findings)
    return Pairing(images, [labels.get(path.relative_to(images_folder).with_suffix("")) for path in images])


def orphan(label: Path, stem: Path, stems: dict[Path, Path], findings: Findings) -> None:
    """Note a label without its picture, and the picture that differs only in letter case, if there is one."""
    alike = stem.with_name(stem.name.lower()), stem.with_name(stem.name.upper())
    near = next((stems[name] for name in alike if name in stems), None)
    what = f"no picture of this name{f' (there is {shown(near.name)})' if near else ''}"
    fix = "Add the picture, or remove or rename the label: their names must be the same."
    findings.fault(label, what, fix, code="label-orphan")


class DiceWriter:
    """`train/images/…` beside `train/labels/…`, or the two words the other way round (`images_first`)."""

    def __init__(self, files: Files, info: DatasetInfo, *, images_first: bool = False) -> None:
        self.files, self.info = files, info
        folders = {split: "val" if images_first and split == "val" else SPLIT_FOLDERS[split] for split in info.splits}
        order = "{kind}/{split}" if images_first else "{split}/{kind}"
        self.images = {split: order.format(kind="images", split=name) for split, name in folders.items()}
        self.labels = {split: order.format(kind="labels", split=name) for split, name in folders.items()}
        for folder in (*self.images.values(), *self.labels.values()):
            files.folder(folder)

    def write(self, record: ImageRecord) -> None:
        name = self.files.claim(record.split, record.name)
        self.files.place(record.path, f"{self.images[record.split]}/{name}")
        if record.labelled:
            row = row_of(self.info.task, self.info.keypoints)
            text = "".join([row(found, record.width, record.height) for found in record.annotations])
            self.files.write_text(f"{self.labels[record.split]}/{name.rpartition('.')[0]}.txt", text)

    def close(self) -> None:
        lines = [f"{split}: {self.images[split]}" for split in self.info.splits]
        if self.info.keypoints:
            lines.append(f"kpt_shape: [{self.info.keypoints[0]}, {self.info.keypoints[1]}]")
            if self.info.flip_index:
                lines.append(f"flip_idx: {list(self.info.flip_index)}")
            if self.info.keypoint_names:
                lines += ["kpt_names:", f"  0: [{', '.join(map(quoted, self.info.keypoint_names))}]"]
        lines += [f"nc: {len(self.info.classes)}", "names:"]
        lines += [f"  {number}: {quoted(name)}" for number, name in enumerate(self.info.classes)]
        self.files.write_text("data.yaml", "\n".join(lines) + "\n")


def quoted(name: str) -> str:
    """`name` so that every YAML reader takes it for this text; `yes`, `1e3` and `a: b` as well."""
    return UNPRINTED.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(name, ensure_ascii=False))


def recognise_dice(given: Path) -> str:
    root = given.parent if given.is_file() else given
    if given.is_file() and given.suffix.lower() not in YAML_SUFFIXES:
        return ""
    path = given if given.is_file() else description_in(root)
    if not path.is_file():
        return ""
    if any(images_below(root, name) for names in FOLDERS.values() for name in names):
        return f"{path.name} and train/images"
    # Nothing but the description: reading it says what is missing.
    return "" if (root / "images").is_dir() or not (given.is_file() or path.name == "data.yaml") else path.name


def split_hint(split: str) -> str:
    folder = FOLDERS[split][0]
    return (
        f"Put pictures into {folder}/images and their labels into {folder}/labels"
        f"{', moved from train, a fifth of them, say' if split == 'val' else ''}, "
        f"and `{split}: {folder}/images` into data.yaml."
    )


def dice_writer(files: Files, info: DatasetInfo) -> DatasetWriter:
    return DiceWriter(files, info)


DICE = Format(
    name="dice",
    title="DICE: `data.yaml`, `train/images`, `train/labels`",
    reads=OBJECTS,
    writes=OBJECTS,
    recognise=recognise_dice,
    open=open_dice,
    writer=dice_writer,
    split_hint=split_hint,
)
