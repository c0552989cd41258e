"""What differs between two versions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from eagleray.registry.files import Files
from eagleray.registry.models import DatasetVersion


@dataclass(frozen=True)
class Comparison:
    """`b` as seen from `a`.

    Attributes:
        renamed: old path → new path of files whose bytes stayed; they are in neither `added` nor `removed`.
        unchanged: how many files are the same at the same path.
        class_counts: annotations of each class in `a` and in `b`, by class name; classes of either.
        added_bytes, removed_bytes: sizes of what was added or changed, and of what was removed or changed.
    """

    a: DatasetVersion
    b: DatasetVersion
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    renamed: dict[str, str]
    unchanged: int
    class_counts: dict[str, tuple[int, int]]
    added_bytes: int
    removed_bytes: int

    @property
    def same(self) -> bool:
        return self.a.digest == self.b.digest

    def plain(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return {
            "a": str(self.a),
            "b": str(self.b),
            "same": self.same,
            "added": list(self.added),
            "removed": list(self.removed),
            "changed": list(self.changed),
            "renamed": self.renamed,
            "unchanged": self.unchanged,
            "added_bytes": self.added_bytes,
            "removed_bytes": self.removed_bytes,
            "images": [self.a.num_images, self.b.num_images],
            "annotations": [self.a.num_annotations, self.b.num_annotations],
            "classes": {name: list(counts) for name, counts in self.class_counts.items()},
            "splits": {
                name: [_figures(self.a, name), _figures(self.b, name)]
                for name in dict.fromkeys([*self.a.splits, *self.b.splits])
            },
        }


def compare_versions(a: DatasetVersion, files_a: Files, b: DatasetVersion, files_b: Files) -> Comparison:
    removed = [path for path in files_a if path not in files_b]
    changed = [path for path, entry in files_a.items() if path in files_b and files_b[path] != entry]
    added = [path for path in files_b if path not in files_a]
    renamed = _renamed(removed, files_a, added, files_b)
    moved = set(renamed.values())
    removed = [path for path in removed if path not in renamed]
    added = [path for path in added if path not in moved]
    counts_a, counts_b = a.class_counts, b.class_counts
    return Comparison(
        a,
        b,
        tuple(sorted(added)),
        tuple(sorted(removed)),
        tuple(sorted(changed)),
        renamed,
        len(files_a) - len(removed) - len(changed) - len(renamed),
        {name: (counts_a.get(name, 0), counts_b.get(name, 0)) for name in dict.fromkeys([*counts_a, *counts_b])},
        sum(files_b[path].size_bytes for path in (*added, *changed)),
        sum(files_a[path].size_bytes for path in (*removed, *changed)),
    )


def _renamed(removed: list[str], files_a: Files, added: list[str], files_b: Files) -> dict[str, str]:
    """Pairs of equal bytes, in the order of paths; an empty file says nothing about where it came from."""
    candidates: dict[str, list[str]] = {}
    for path in sorted(added, reverse=True):
        candidates.setdefault(files_b[path].sha256, []).append(path)
    pairs = {}
    for path in sorted(removed):
        entry = files_a[path]
        if entry.size_bytes and candidates.get(entry.sha256):
            pairs[path] = candidates[entry.sha256].pop()
    return pairs


def _figures(version: DatasetVersion, split: str) -> dict[str, int]:
    facts = version.splits.get(split)
    return {"images": facts.num_images, "annotations": facts.num_annotations} if facts else {}
