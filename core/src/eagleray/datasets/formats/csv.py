"""CSV for classification: a header, and the picture and its class in each row."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from eagleray.contract import DatasetError
from eagleray.contract.tasks import IMAGE_CLASSIFICATION
from eagleray.datasets.formats.base import Format
from eagleray.datasets.places import WORDS, Named, folder_with, is_there, safe_name, split_of
from eagleray.datasets.records import Annotation, DatasetInfo, DatasetWriter, ImageRecord
from eagleray.datasets.report import Findings, shown
from eagleray.datasets.writing import SPLIT_FOLDERS, Files

IMAGE = ("image", "filename", "file_name", "file", "path", "filepath", "image_path", "img")
LABEL = ("label", "class", "category", "target", "class_name", "label_name", "species")
SPLIT = ("split", "set", "subset", "dataset")
MAX_FIELD = 1 << 16
MAX_ROW = 1 << 20
# All of them are held in memory.
MAX_CLASSES = 100_000
FIX = "The first line is `image,label` or `image,label,split`; then one picture a line."


@dataclass(frozen=True)
class Table:
    """One CSV file and which of its columns hold what; `split` is the file's own where it has no such column."""

    path: Path
    image: int
    label: int
    split_column: int | None
    split: str

    def rows(self, findings: Findings, *, mend: bool = False) -> Iterator[tuple[int, str, str, str]]:
        """Line, picture, class and split of every sound row."""
        width = max(self.image, self.label, self.split_column or 0) + 1
        with open_text(self.path, mend=mend) as file:
            lines = Lines(file)
            reader = csv.reader(lines, strict=True)
            try:
                next(reader, None)
                for row in lines.each_row(reader):
                    if not any(map(str.strip, row)):
                        continue
                    if len(row) < width:
                        findings.fault(self.path, f"{len(row)} columns instead of {width}", FIX, reader.line_num)
                        continue
                    name, label = row[self.image].strip(), row[self.label].strip()
                    told = row[self.split_column].strip().lower() if self.split_column is not None else self.split
                    split = WORDS.get(told or "train")
                    if split is None or not name or not label:
                        what = f"the split '{shown(told, 40)}'" if split is None else "an empty picture or class"
                        findings.fault(self.path, what, FIX, reader.line_num)
                        continue
                    yield reader.line_num, name, label, split
            except RowTooLongError as error:
                findings.fault(self.path, str(error), FIX, reader.line_num + 1, code="file-too-large")
            except (csv.Error, UnicodeDecodeError) as error:
                what = f"not CSV: {shown(error, 80)}"
                findings.fault(self.path, what, "Save it as UTF-8 CSV.", reader.line_num, code="file-malformed")


class RowTooLongError(ValueError):
    """A row is longer than `MAX_ROW` characters."""


@dataclass
class Lines:
    """The lines of a file for `csv.reader`, which holds a whole row: no row may be longer than `MAX_ROW`."""

    file: io.TextIOWrapper
    taken: int = 0

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        line = self.file.readline(MAX_ROW + 1)
        self.taken += len(line)
        if self.taken > MAX_ROW:
            raise RowTooLongError(f"a row longer than {MAX_ROW} characters")
        if not line:
            raise StopIteration
        return line

    def each_row(self, reader: Iterator[list[str]]) -> Iterator[list[str]]:
        self.taken = 0
        for row in reader:
            self.taken = 0
            yield row


def open_text(path: Path, *, mend: bool = False) -> io.TextIOWrapper:
    """UTF-8, with or without a mark; UTF-16 with `mend`."""
    with path.open("rb") as file:
        head = file.read(2)
    wide = head in (b"\xff\xfe", b"\xfe\xff")
    return path.open(encoding="utf-16" if wide and mend else "utf-8-sig", newline="")


@dataclass(frozen=True)
class CsvSource:
    """The rows of one or several tables, streamed."""

    info: DatasetInfo
    tables: tuple[Table, ...]
    findings: Findings
    mend: bool
    named: Named

    def records(self, split: str) -> Iterator[ImageRecord]:
        ids = {name: number for number, name in enumerate(self.info.classes)}
        folder = self.info.root / self.info.images[split]
        names: set[str] = set()
        for table in self.tables:
            for line, given, label, found in table.rows(self.findings, mend=self.mend):
                if found != split:
                    continue
                name = safe_name(given, folder)
                if name is None or not is_there(folder, name):
                    what = f"the picture {shown(given)} is not in {shown(folder.name)}/"
                    self.findings.fault(table.path, what, "Add it, or remove the row.", line, code="image-missing")
                elif name in names:
                    what = f"the picture {shown(given)} a second time"
                    self.findings.fault(table.path, what, "A picture has one class.", line, code="image-name")
                else:
                    names.add(name)
                    yield ImageRecord(name, folder / name, 0, 0, split, (Annotation(ids[label]),))
        self.named.read(split, names)


def open_csv(given: Path, task: str | None, findings: Findings, *, mend: bool) -> CsvSource:
    """See `Open`. Classes are in the order of their names."""
    root = given.parent if given.is_file() else given
    paths = [given] if given.is_file() else sorted([*root.glob("*.csv"), *root.glob("*/*.csv")])
    tables = tuple(table for path in paths if (table := table_of(path, root, findings)) is not None)
    if not tables:
        raise DatasetError(f"{shown(given)} has no CSV file with pictures and classes.", FIX)
    silent = Findings(root)
    classes: set[str] = set()
    first: dict[str, tuple[Table, str]] = {}
    for table in tables:
        for _, name, label, split in table.rows(silent, mend=mend):
            classes.add(label)
            if len(classes) > MAX_CLASSES:
                raise DatasetError(f"{shown(table.path)} has more than {MAX_CLASSES:,} classes.", FIX)
            first.setdefault(split, (table, name))
    images = {split: folder_with(root, table.path.parent, name, [split]) for split, (table, name) in first.items()}
    labels = {split: table.path.relative_to(root).as_posix() for split, (table, _) in first.items()}
    if not images:
        # What is wrong with the file, or with every row, is what the reader wants to know.
        findings.raise_faults()
        silent.raise_faults()
        raise DatasetError(f"{shown(tables[0].path)} has no row.", FIX)
    names = tuple(table.path.relative_to(root).as_posix() for table in tables)
    info = DatasetInfo(root, "csv", IMAGE_CLASSIFICATION, tuple(sorted(classes)), images, labels, tables=names)
    return CsvSource(info, tables, findings, mend, Named(root, images, findings))


def table_of(path: Path, root: Path, findings: Findings | None = None) -> Table | None:
    """The table's columns by its header; None where it has no picture or no class."""
    try:
        with path.open("rb") as file:
            head = file.readline(MAX_FIELD)
    except OSError:
        return None
    wide = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    if wide and findings is not None:
        findings.fault(path, "UTF-16, not UTF-8 text", "Save the file as UTF-8.", code="file-encoding")
    text = (head if len(head) % 2 == 0 else head + b"\0").decode("utf-16" if wide else "utf-8-sig", "replace")
    try:
        header = [name.strip().lower() for name in next(csv.reader([text.strip("\r\n\0")]), [])]
    except csv.Error:
        return None
    image, label, split = (next((header.index(name) for name in names if name in header), None) for names in KINDS)
    if image is None or label is None or image == label:
        return None
    return Table(path, image, label, split, split_of(path, root) or "train")


KINDS = (IMAGE, LABEL, SPLIT)


class CsvWriter:
    """`images/{split}/…` and one `labels.csv` with the columns image, label and split."""

    def __init__(self, files: Files, info: DatasetInfo) -> None:
        self.files, self.info = files, info
        path = Path(files.folder("."), "labels.csv")
        self.file = path.open("w", encoding="utf-8", newline="")
        self.rows = csv.writer(self.file, lineterminator="\n")
        self.rows.writerow(["image", "label", "split"])

    def write(self, record: ImageRecord) -> None:
        for found in record.annotations:
            place = f"images/{SPLIT_FOLDERS[record.split]}"
            name = self.files.claim(place, record.name)
            self.files.place(record.path, f"{place}/{name}")
            label = self.info.classes[found.class_id]
            self.rows.writerow([f"{place}/{name}", label, record.split])

    def close(self) -> None:
        self.file.close()


def recognise_csv(given: Path) -> str:
    root = given.parent if given.is_file() else given
    paths = [given] if given.is_file() else sorted(root.glob("*.csv"))
    tables = (table_of(path, root) for path in paths if path.suffix.lower() == ".csv")
    return next((table.path.name for table in tables if table), "")


def csv_writer(files: Files, info: DatasetInfo) -> DatasetWriter:
    return CsvWriter(files, info)


def split_hint(split: str) -> str:
    return f"Name the split `{split}` in a column `split`, or put its rows into {split}.csv."


CSV = Format(
    name="csv",
    title="CSV for classification: `image,label,split`",
    reads=(IMAGE_CLASSIFICATION,),
    writes=(IMAGE_CLASSIFICATION,),
    recognise=recognise_csv,
    open=open_csv,
    writer=csv_writer,
    split_hint=split_hint,
)
