"""Where each file of a version lies: pure decisions, so that every state a crash can leave is tested without a store.

Bytes are at one of two kinds of place. `images/` and `annotations/` hold the files of one version, the layout; a file
that another version has at the same path with other bytes is at `objects/{sha256}`. While the layout changes, both
versions stay readable: what will be overwritten or removed has been copied to `objects/` before the first change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath

from eagleray.registry import keys
from eagleray.registry.files import Files
from eagleray.storage.store import FileEntry


@dataclass(frozen=True)
class Layout:
    """The files under `images/` and `annotations/`.

    Attributes:
        number: the version that they are, or, while they change, were; 0 and no files: none yet.
        target: the files that they are being changed into, with their version's number; None outside a change.
    """

    dataset_id: str
    number: int
    files: Files
    target_number: int | None = None
    target: Files = field(default_factory=dict)

    @cached_property
    def folders(self) -> frozenset[str]:
        return frozenset(str(parent) for path in self.files for parent in PurePosixPath(path).parents)

    def takes(self, path: str) -> bool:
        """Whether a newer version may put `path` at its own place at once: no file of the layout is in the way."""
        if path in self.files or path in self.folders:
            return False
        return not any(str(parent) in self.files for parent in PurePosixPath(path).parents)

    @cached_property
    def steady(self) -> Mapping[str, str]:
        """A path for each sha256 that lies under `images/` or `annotations/` and is not about to change."""
        if self.target_number is None:
            return {entry.sha256: path for path, entry in self.files.items()}
        kept = {
            entry.sha256: path
            for path, entry in self.files.items()
            if self.target.get(path, entry) == entry and path in self.target
        }
        if self.target_number > self.number:
            kept.update({entry.sha256: path for path, entry in self.target.items() if self.takes(path)})
        return kept

    def place(self, number: int, path: str, entry: FileEntry) -> str:
        """The key of the file `path` of version `number`."""
        if number > self.number and self.takes(path):
            return keys.current_key(self.dataset_id, path)
        if entry.sha256 in self.steady:
            return keys.current_key(self.dataset_id, self.steady[entry.sha256])
        return keys.object_key(self.dataset_id, entry.sha256)

    def locate(self, number: int, files: Files) -> dict[str, tuple[str, FileEntry]]:
        """Key and identity of every file of version `number`, by its path in the dataset."""
        return {path: (self.place(number, path, entry), entry) for path, entry in files.items()}

    def to_preserve(self) -> dict[str, str]:
        """sha256 → path of what the change to `target` overwrites or removes and no steady place holds."""
        return {
            entry.sha256: path
            for path, entry in self.files.items()
            if self.target.get(path) != entry and entry.sha256 not in self.steady
        }

    def to_write(self) -> dict[str, FileEntry]:
        """The files that the change to `target` puts at their own place, from `objects/` or a steady place."""
        newer = self.target_number is not None and self.target_number > self.number
        return {
            path: entry
            for path, entry in self.target.items()
            if self.files.get(path) != entry and not (newer and self.takes(path))
        }

    def to_remove(self) -> list[str]:
        return [path for path in self.files if path not in self.target]
