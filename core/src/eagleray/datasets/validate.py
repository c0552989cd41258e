"""Everything that is wrong or odd about a dataset, file by file and row by row."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import BaseModel

from eagleray.contract import DatasetError
from eagleray.datasets.convert import SplitCounts
from eagleray.datasets.formats import format_named
from eagleray.datasets.read import folder_of, open_dataset, require_splits
from eagleray.datasets.records import DatasetSource, ImageRecord
from eagleray.datasets.report import Finding, Findings, Severity, relative, shown
from eagleray.datasets.scan import Tally, counts_by_name, scan

BLOCK = 1 << 20


class Found(BaseModel):
    """One finding. `path` is relative to the dataset and empty where it is about the whole; `row` counts from 1."""

    severity: Severity
    code: str
    message: str
    fix: str
    path: str
    row: int | None


class ValidationReport(BaseModel):
    """What a dataset holds and what is wrong with it.

    Attributes:
        findings: errors first; of each kind a thousand at most, `errors` and `warnings` count them all.
        counts: kind of finding → how many.
    """

    path: Path
    format: str
    task: str
    classes: tuple[str, ...]
    splits: dict[str, SplitCounts]
    class_counts: dict[str, int]
    errors: int
    warnings: int
    counts: dict[str, int]
    findings: list[Found]

    @property
    def ok(self) -> bool:
        """Whether it can be trained from; warnings do not hinder."""
        return not self.errors

    def text(self, limit: int = 50) -> str:
        """For a terminal: figures, then findings one a line with their fixes."""
        head = [f"{shown(self.path)}: {self.format or 'unknown format'}, {self.task or 'no task'}"]
        head += [
            f"  {name}: {each.images} pictures, {each.annotations} annotations, {each.backgrounds} without any"
            for name, each in self.splits.items()
        ]
        head += [f"  {len(self.classes)} classes, {self.errors} errors, {self.warnings} warnings"]
        for found in self.findings[:limit]:
            place = f"{found.path}:{found.row}: " if found.row else f"{found.path}: " if found.path else ""
            head.append(f"{found.severity}: {place}{found.message}{f' → {found.fix}' if found.fix else ''}")
        more = self.errors + self.warnings - len(self.findings[:limit])
        return "\n".join(head + ([f"… and {more} more"] if more > 0 else []))


def validate(
    path: str | Path, task: str | None = None, format: str | None = None, *, decode: bool = True
) -> ValidationReport:
    """Read all of a dataset and report what was found; a fault is a finding, not an exception.

    Args:
        task: None: what the annotations hold.
        format: None: by what lies there.
        decode: whether pictures are decoded and compared; without, only labels are checked.

    Raises:
        DatasetError: there is nothing at `path`, or its format cannot be told.
        UnknownNameError: an unknown task or format.
    """
    given = Path(path).expanduser().absolute()
    root = folder_of(given)
    try:
        source, findings = open_dataset(given, task, format)
    except DatasetError as error:
        findings = Findings(root)
        findings.add(Finding(Severity.ERROR, "dataset", error.message, error.hint))
        return report_of(None, {}, findings, root)
    tallies: dict[str, Tally] = {}
    try:
        require_splits(source.info, format_named(source.info.format))
    except DatasetError as error:
        findings.add(Finding(Severity.ERROR, "split-empty", error.message, error.hint))
    twins = Twins(findings)
    try:
        tallies = scan(source, findings, decode=decode, watch=twins.watch if decode else None)
    except DatasetError as error:
        findings.add(Finding(Severity.ERROR, "dataset", error.message, error.hint))
    return report_of(source, tallies, findings, root)


def report_of(
    source: DatasetSource | None, tallies: dict[str, Tally], findings: Findings, root: Path
) -> ValidationReport:
    info = source.info if source else None
    classes = info.classes if info else ()
    return ValidationReport(
        path=root,
        format=info.format if info else "",
        task=info.task if info else "",
        classes=classes,
        splits={
            name: SplitCounts(
                images=tally.images, annotations=tally.classes.total(), backgrounds=tally.unlabelled + tally.empty
            )
            for name, tally in tallies.items()
        },
        class_counts=counts_by_name(classes, tallies.values()),
        errors=findings.total(Severity.ERROR),
        warnings=findings.total(Severity.WARNING),
        counts={f"{severity}/{code}": count for (severity, code), count in sorted(findings.counts.items())},
        findings=[
            Found(
                severity=found.severity,
                code=found.code,
                message=found.message,
                fix=found.fix,
                path=found.path,
                row=found.row,
            )
            for severity in Severity
            for found in findings.of(severity)
        ],
    )


class Twins:
    """Finds pictures of the same content: only files of one size are read again."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self._first: dict[int, tuple[Path, str]] = {}
        self._by_hash: dict[bytes, tuple[Path, str]] = {}
        self._paths: set[str] = set()

    def watch(self, records: Iterable[ImageRecord]) -> Iterator[ImageRecord]:
        for record in records:
            if twin := self.twin_of(record.path, record.split):
                self.note(record, *twin)
            yield record

    def twin_of(self, path: Path, split: str) -> tuple[Path, str] | None:
        """An earlier picture of the same content and its split; the same file again is no twin."""
        if str(path) in self._paths:
            return None
        self._paths.add(str(path))
        try:
            size = path.stat().st_size
            first = self._first.get(size)
            if first is None:
                self._first[size] = (path, split)
                return None
            self._by_hash.setdefault(digest_of(first[0]), first)
            known = self._by_hash.setdefault(digest_of(path), (path, split))
        except OSError:
            return None
        return known if known[0] != path else None

    def note(self, record: ImageRecord, twin: Path, split: str) -> None:
        place = shown(relative(twin, self.findings.root))
        across = split != record.split
        fix = "Keep it in one split only." if across else "Keep one of the two."
        words = f"the same picture as {place}{f' of {split}' if across else ''}"
        code = "image-duplicate" if across else "image-repeated"
        self.findings.warn(words, code=code, path=record.path, fix=fix)


def digest_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
