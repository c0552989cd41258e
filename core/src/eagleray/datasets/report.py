"""What reading a dataset gives: the dataset and warnings, or one error that names the files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from eagleray.contract import Dataset, DatasetError, Split

MAX_NAMED = 10
SURROGATES = re.compile("[\ud800-\udfff]")
# Of one kind; the rest is counted, so that a million faults fit in bounded memory.
MAX_KEPT = 1000


class Severity(StrEnum):
    """An error refuses the dataset, a warning does not."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or odd.

    Attributes:
        code: its kind; `CODES` lists them.
        message: what was found, with the value.
        fix: what mends it; may be empty.
        path: the file, relative to the dataset; empty where it is about the whole.
        row: line of a text file, or number of the annotation in a JSON file, from 1.
    """

    severity: Severity
    code: str
    message: str
    fix: str = ""
    path: str = ""
    row: int | None = None

    @property
    def place(self) -> str:
        return f"{self.path}:{self.row}" if self.row else self.path

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.path else self.message


# Every kind of finding. What refuses the dataset is called `error`; `both` depends on how far it goes.
CODES = {
    "dataset": ("error", "the dataset as a whole cannot be read: a missing description, split or file"),
    "image-unreadable": ("error", "a picture is empty, truncated, damaged or of another kind of file"),
    "image-too-large": ("error", "a picture has more than 100,000,000 pixels"),
    "image-missing": ("error", "an annotation file names a picture that is not there, or that lies outside"),
    "image-name": ("error", "two pictures of a split would take the same label, or a name is not UTF-8 text"),
    "image-unnamed": ("warning", "pictures lie there that no annotation file names; they are not read"),
    "image-mislabelled": ("warning", "the content is another picture format than the suffix says"),
    "image-orientation": ("warning", "EXIF data turn the picture; frameworks differ in whether they obey"),
    "image-size": ("both", "the size in the annotation file is not the picture's"),
    "image-duplicate": ("warning", "the same content is in two splits, so that metrics flatter the model"),
    "image-repeated": ("warning", "the same content is twice in one split"),
    "file-ignored": ("warning", "a file that is no part of the format lies there"),
    "file-encoding": ("both", "UTF-16 and other text that is not UTF-8 is refused; a byte-order mark or CRLF is said"),
    "file-too-large": ("error", "a label file, a row or a description is larger than any true one"),
    "file-malformed": ("error", "a file is not of its kind: broken JSON, XML or CSV"),
    "label-orphan": ("error", "labels without their picture"),
    "row": ("error", "a row has the wrong number or kind of columns"),
    "not-finite": ("error", "a coordinate is NaN or infinite"),
    "outside": (
        "both",
        "a coordinate lies outside its picture; a warning up to a pixel, and of a row in 0..1",
    ),
    "no-area": ("error", "a box or an outline has no area"),
    "class-id": ("error", "a class that the dataset does not have"),
    "class-empty": ("both", "a class without any object; an error where the layout needs one"),
    "class-name": ("both", "two classes have the same name; an error where a name is not UTF-8 text"),
    "background": ("warning", "pictures without any object"),
    "row-repeated": ("warning", "a row repeats another of the same picture"),
    "id-repeated": ("both", "an id that must be unique is not; an error for pictures"),
    "split-empty": ("error", "a split without pictures or objects"),
    "split-shared": ("warning", "validation pictures are the training pictures"),
    "keypoints": ("warning", "keypoints without the order of a mirrored picture"),
    "description": ("warning", "the description says something that is not so, or is not obeyed"),
    "left-out": ("warning", "annotations that the wanted task or format has no place for"),
}


@dataclass(frozen=True)
class DatasetReport:
    """A dataset that was read to the last label and picture.

    Attributes:
        warnings: sentences about what is odd but does not hinder training.
    """

    dataset: Dataset
    warnings: tuple[str, ...]

    def counts(self) -> dict[str, object]:
        """Plain data for a job's record: totals, and the same figures for each split under `splits`."""
        return {
            **split_totals(self.dataset.splits.values()),
            "classes": len(self.dataset.classes),
            "splits": {name: split_totals([split]) for name, split in self.dataset.splits.items()},
        }


def split_totals(splits: Iterable[Split]) -> dict[str, int]:
    found = list(splits)
    return {
        "images": sum(split.num_images for split in found),
        "annotations": sum(split.num_annotations for split in found),
        "backgrounds": sum(split.num_backgrounds for split in found),
    }


@dataclass
class Findings:
    """Collects what is found while a dataset is read; of each kind it keeps the first ones and counts the rest."""

    root: Path
    items: list[Finding] = field(default_factory=list)
    counts: Counter[tuple[Severity, str]] = field(default_factory=Counter)
    _known: set[Finding] = field(default_factory=set)

    def fault(self, path: Path | str, what: str, fix: str, line: int | None = None, *, code: str = "row") -> None:
        """Note that `path` (at `line`, 1-based) is faulty and what mends it."""
        self.add(Finding(Severity.ERROR, code, what, fix, shown(relative(Path(path), self.root)), line))

    def warn(
        self, sentence: str, *, code: str, fix: str = "", path: Path | None = None, line: int | None = None
    ) -> None:
        """Note something odd: a sentence about the whole, or words about the file at `path`."""
        place = shown(relative(path, self.root)) if path else ""
        self.add(Finding(Severity.WARNING, code, sentence, fix, place, line))

    def add(self, finding: Finding) -> None:
        """Note it once, also where two splits of a copy come from one split and that is read twice."""
        if finding in self._known:
            return
        kind = (finding.severity, finding.code)
        self.counts[kind] += 1
        if self.counts[kind] <= MAX_KEPT:
            self.items.append(finding)
            self._known.add(finding)

    def of(self, severity: Severity) -> list[Finding]:
        return [finding for finding in self.items if finding.severity is severity]

    def total(self, severity: Severity) -> int:
        return sum(count for (found, _), count in self.counts.items() if found is severity)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings as sentences; of those about single files, one for each kind."""
        whole: dict[str, None] = {}
        for finding in self.of(Severity.WARNING):
            if not finding.path:
                whole[finding.message] = None
        files: dict[str, Finding] = {}
        for finding in self.of(Severity.WARNING):
            if finding.path:
                files.setdefault(finding.code, finding)
        sentences = list(whole)
        for code, finding in files.items():
            more = self.counts[Severity.WARNING, code] - 1
            sentences.append(f"{finding}{f' (and {more} more like it)' if more else ''}.")
        return tuple(sentences)

    def raise_faults(self) -> None:
        """Raises DatasetError if there was a fault."""
        total = self.total(Severity.ERROR)
        if not total:
            return
        named = self.of(Severity.ERROR)[:MAX_NAMED]
        lines = "".join(f"\n  {finding}" for finding in named)
        more = f"\n  … and {total - len(named)} more" if total > len(named) else ""
        faults = "1 fault" if total == 1 else f"{total} faults"
        fixes = " ".join(dict.fromkeys(finding.fix for finding in named if finding.fix))
        raise DatasetError(f"The dataset {shown(self.root)} has {faults}:{lines}{more}", fixes)


def relative(path: Path, root: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) else path


def is_text(name: str) -> bool:
    """Whether UTF-8 can hold it: a file's name of other bytes and an escape in JSON may give text that it cannot."""
    return name.isascii() or not SURROGATES.search(name)


def shown(value: object, limit: int = 200) -> str:
    """`value` for a message: control characters (a terminal would obey them) escaped, the length bounded."""
    text = str(value)
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= limit else f"{text[:limit]}…"


def listed(names: list[str]) -> str:
    """The first few of `names` for a message."""
    return ", ".join(shown(name) for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
