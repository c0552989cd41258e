"""A store in a folder. Every write is whole or absent, also after a power cut."""

from __future__ import annotations

import errno
import io
import os
import random
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from eagleray.contract.errors import StorageError
from eagleray.storage.disk import (
    disk_errors,
    make_folders,
    remove_older,
    sync_folder,
    temporary_file,
    write_file,
)
from eagleray.storage.store import (
    TEMPORARY_PREFIX,
    AlreadyExistsError,
    FileEntry,
    NotFoundError,
    ObjectIdentity,
    ObjectInfo,
    check_key,
    file_entry,
)

TEMPORARY_TTL_S = 24 * 3600.0
_TRIES = 50
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


class LocalStore:
    """Keys are paths below `root`, which the first write makes."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    @property
    def location(self) -> str:
        return str(self.root)

    @property
    def write_interval_s(self) -> float:
        return 0.0

    def check(self) -> None:
        with disk_errors("read", self.root):
            if self.root.exists():
                _scan(self.root)

    def put_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        self._put(key, io.BytesIO(data), if_absent)

    def put_file(self, key: str, path: Path, *, if_absent: bool = False) -> FileEntry:
        with disk_errors(f"read {path.name}", path.parent), path.open("rb") as source:
            size_bytes = os.fstat(source.fileno()).st_size
            entry = self._put(key, source, if_absent)
        if entry.size_bytes != size_bytes:
            raise StorageError(f"'{path}' changed while it was stored.", "Store it again once nothing writes to it.")
        return entry

    def get_bytes(self, key: str) -> bytes:
        with self._reading(key) as path:
            return path.read_bytes()

    def digest(self, key: str) -> FileEntry:
        with self._reading(key) as path:
            return file_entry(path)

    def fetch_file(self, key: str, into: Path, *, sha256: str | None) -> None:
        with self._reading(key) as path, path.open("rb") as source, disk_errors(f"fetch {key}", into.parent):
            into.parent.mkdir(parents=True, exist_ok=True)
            with temporary_file(into.parent) as temporary:
                # Not durable: what is fetched can be fetched again, and thousands of syncs take minutes.
                entry = write_file(temporary, source, durable=False)
                if sha256 is not None and entry.sha256 != sha256:
                    raise StorageError(
                        f"'{key}' in {self.root} is damaged: its sha256 is {entry.sha256}, not {sha256}.",
                        "Put the file there again, or delete it.",
                    )
                temporary.replace(into)

    def fetch_many(self, files: Mapping[str, tuple[str, FileEntry]], into: Path) -> None:
        for name, (key, entry) in files.items():
            self.fetch_file(key, into / check_key(name), sha256=entry.sha256)

    def identify(self, key: str) -> ObjectIdentity:
        with self._reading(key) as path:
            found = path.stat()
            if not path.is_file():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            return ObjectIdentity(found.st_size, None, f"{found.st_ino}-{found.st_size}-{found.st_mtime_ns}")

    def copy(self, source_key: str, key: str) -> None:
        # Not a hard link: a program that later writes into one of the two would change the other.
        with self._reading(source_key) as path, path.open("rb") as source:
            self._put(key, source, False)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        folder = self._path(prefix) if prefix else self.root
        return self._walk(folder, f"{prefix}/" if prefix else "")

    def list_folders(self, prefix: str) -> Sequence[str]:
        folder = self._path(prefix) if prefix else self.root
        base = f"{prefix}/" if prefix else ""
        with disk_errors(f"list {prefix}", self.root):
            names = sorted(entry.name for entry in _scan(folder) if entry.is_dir(follow_symlinks=False))
        return [name for name in names if any(self._walk(folder / name, f"{base}{name}/"))]

    def exists(self, key: str) -> bool:
        path = self._path(key)
        with disk_errors(f"look for {key}", self.root):
            return path.is_file()

    def delete(self, key: str) -> None:
        path = self._path(key)
        with disk_errors(f"delete {key}", self.root):
            try:
                path.unlink()
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
                return
            # Another process may have removed the folder, empty now.
            with suppress(FileNotFoundError):
                sync_folder(path.parent)
        self._remove_empty(path.parent)

    def delete_prefix(self, prefix: str) -> None:
        path = self._path(prefix)
        if path.is_symlink():
            raise StorageError(f"'{path}' is a link, not a folder of the store.", "Remove it by hand.")
        with disk_errors(f"delete {prefix}", self.root):
            while path.is_dir():
                # Someone else deleting the same folder ends rmtree early.
                with suppress(FileNotFoundError):
                    shutil.rmtree(path)
            with suppress(FileNotFoundError, NotADirectoryError):
                sync_folder(path.parent)
        self._remove_empty(path.parent)

    def presign(self, key: str, expires_s: int) -> str | None:
        return None

    def sweep_unfinished(self, older_than_s: float) -> int:
        found = self.root.rglob(f"{TEMPORARY_PREFIX}*") if self.root.is_dir() else ()
        with disk_errors("sweep", self.root):
            return sum(remove_older(path, older_than_s) for path in found)

    def local_path(self, key: str) -> Path | None:
        return self._path(key)

    def _path(self, key: str) -> Path:
        """The file of `key`; a link on the way that leads out of the root is a StorageError."""
        path = self.root / check_key(key)
        if not _inside(path, self.root):
            raise StorageError(f"'{key}' leads out of the store {self.root}.", "Remove the link, or copy the file in.")
        return path

    @contextmanager
    def _reading(self, key: str) -> Iterator[Path]:
        path = self._path(key)
        try:
            with disk_errors(f"read {key}", self.root):
                yield path
        except StorageError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in _ABSENT and not path.is_file():
                raise NotFoundError(f"There is no '{key}' in {self.root}.") from None
            raise

    def _put(self, key: str, source: BinaryIO, if_absent: bool) -> FileEntry:
        path = self._path(key)
        with disk_errors(f"write {key}", self.root), _temporary_in_new(path.parent) as temporary:
            entry = write_file(temporary, source)
            if if_absent:
                _link(temporary, path, key)
            else:
                temporary.replace(path)
            sync_folder(path.parent)
            return entry

    def _walk(self, folder: Path, base: str) -> Iterator[ObjectInfo]:
        with disk_errors(f"list {base}", self.root):
            entries = _scan(folder)
        # Sorted by name with "/" behind a folder's, which is the order of the whole keys: "a-b" comes before "a/b".
        for name, entry in sorted((f"{e.name}/" if e.is_dir(follow_symlinks=False) else e.name, e) for e in entries):
            if name.endswith("/"):
                yield from self._walk(folder / entry.name, base + name)
            elif name.startswith(TEMPORARY_PREFIX):
                remove_older(Path(entry.path), TEMPORARY_TTL_S)
            elif entry.is_file() and (not entry.is_symlink() or _inside(Path(entry.path), self.root)):
                with suppress(FileNotFoundError):
                    found = entry.stat()
                    yield ObjectInfo(base + name, found.st_size, found.st_mtime)

    def _remove_empty(self, folder: Path) -> None:
        """A bucket has no empty folders, so neither has this store."""
        with suppress(OSError):
            while folder != self.root and self.root in folder.parents:
                folder.rmdir()
                folder = folder.parent


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _inside(path: Path, root: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


@contextmanager
def _temporary_in_new(folder: Path) -> Iterator[Path]:
    with ExitStack() as stack:
        for attempt in range(_TRIES):
            try:
                make_folders(folder)
                temporary = stack.enter_context(temporary_file(folder))
                break
            except FileNotFoundError:
                # Another process removed the folder, still empty, before the first file was in it.
                if attempt == _TRIES - 1:
                    raise
                time.sleep(random.uniform(0, 0.001 * attempt))
        yield temporary


def _link(temporary: Path, path: Path, key: str) -> None:
    try:
        os.link(temporary, path)
    except FileExistsError:
        # On NFS the first answer can be lost and the retry meets its own link.
        if temporary.stat().st_nlink != 2:
            raise AlreadyExistsError(f"'{key}' exists already.") from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        raise StorageError(
            f"The file system of {path.parent} has no hard links, so a write there cannot be made conditional.",
            "Name a folder on another file system with EAGLERAY_STORAGE.",
        ) from error
