"""Which names inside an archive or a bucket may become files."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath

from eagleray.contract.errors import DatasetError
from eagleray.datasets.report import shown
from eagleray.storage.store import MAX_KEY_BYTES, MAX_NAME_BYTES

HINT = "Pack it again, with plain files below one folder."


class MemberNames:
    """The names that one source has had so far; any that is unsafe, or meets another one, is refused.

    Two names meet where some file system holds them for one: the same letters in another case, or composed otherwise.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._files: dict[str, str] = {}
        self._folders: dict[str, str] = {}

    def add(self, name: str, *, is_folder: bool = False) -> PurePosixPath:
        """The path that `name` stands for. Raises DatasetError."""
        name = name.removeprefix("./")
        path = PurePosixPath(name)
        parts = name.rstrip("/").split("/") if is_folder else name.split("/")
        if fault := _fault(name, parts):
            raise DatasetError(f"{self._what} holds {shown(ascii(name))}, {fault}.", HINT)
        key = _folded(path)
        for parent in [*([path] if is_folder else []), *path.parents][: len(parts)]:
            if parent != PurePosixPath("."):
                self._add_folder(parent, name)
        if not is_folder:
            other = self._files.get(key) or self._folders.get(key)
            if other is not None:
                self._refuse(name, other)
            self._files[key] = name
        return path

    def _add_folder(self, folder: PurePosixPath, name: str) -> None:
        key = _folded(folder)
        if key in self._files:
            self._refuse(name, self._files[key])
        if self._folders.setdefault(key, str(folder)) != str(folder):
            self._refuse(name, self._folders[key])

    def _refuse(self, name: str, other: str) -> None:
        what = "twice" if name == other else f"and {shown(ascii(other))}, which some systems hold for one"
        raise DatasetError(f"{self._what} holds {shown(ascii(name))} {what}.", HINT)


def _folded(path: PurePosixPath) -> str:
    return unicodedata.normalize("NFC", str(path)).casefold()


def _fault(name: str, parts: list[str]) -> str:
    """Why a name may not become a file; empty where it may."""
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        return "which is not text"
    if name.startswith(("/", "~")) or "\\" in name or (len(name) > 1 and name[1] == ":" and name[0].isalpha()):
        return "which is not a path inside it"
    if any(part in ("", ".", "..") for part in parts):
        return "which leads out of it or says nothing"
    if any(ord(character) < 32 or ord(character) == 127 for character in name):
        return "which has control characters"
    if len(encoded) > MAX_KEY_BYTES - 128 or any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
        return "which is too long"
    return ""
