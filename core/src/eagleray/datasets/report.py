"""What reading a dataset gives: the dataset and warnings, or one error that names the files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from eagleray.contract import Dataset, DatasetError

MAX_NAMED = 10


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
        splits = {
            name: {
                "images": split.num_images,
                "annotations": split.num_annotations,
                "backgrounds": split.num_backgrounds,
            }
            for name, split in self.dataset.splits.items()
        }
        return {
            "images": self.dataset.num_images,
            "annotations": self.dataset.num_annotations,
            "backgrounds": sum(split.num_backgrounds for split in self.dataset.splits.values()),
            "classes": len(self.dataset.classes),
            "splits": splits,
        }


@dataclass
class Findings:
    """Collects faults and warnings while a dataset is read; keeps the first ten faults and counts the rest."""

    root: Path
    warnings: list[str] = field(default_factory=list)
    _named: list[str] = field(default_factory=list)
    _fixes: list[str] = field(default_factory=list)
    _total: int = 0

    def fault(self, path: Path, what: str, fix: str, line: int | None = None) -> None:
        """Note that `path` (at `line`, 1-based) is faulty and what mends it."""
        self._total += 1
        if len(self._named) < MAX_NAMED:
            place = shown(relative(path, self.root))
            self._named.append(f"{place}:{line}: {what}" if line else f"{place}: {what}")
            if fix not in self._fixes:
                self._fixes.append(fix)

    def warn(self, sentence: str) -> None:
        self.warnings.append(sentence)

    def raise_faults(self) -> None:
        """Raises DatasetError if there was a fault."""
        if not self._total:
            return
        lines = "".join(f"\n  {fault}" for fault in self._named)
        more = f"\n  … and {self._total - len(self._named)} more" if self._total > len(self._named) else ""
        faults = "1 fault" if self._total == 1 else f"{self._total} faults"
        raise DatasetError(f"The dataset {shown(self.root)} has {faults}:{lines}{more}", " ".join(self._fixes))


def relative(path: Path, root: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) else path


def shown(value: object, limit: int = 200) -> str:
    """`value` for a message: control characters (a terminal would obey them) escaped, the length bounded."""
    text = str(value)
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= limit else f"{text[:limit]}…"


def listed(names: list[str]) -> str:
    """The first few of `names` for a message."""
    return ", ".join(shown(name) for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
