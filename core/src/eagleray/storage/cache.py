"""A node's cache of datasets and weights: files by the sha256 of their bytes, fetched once and shared by all jobs.

    $EAGLERAY_HOME/cache/files/ab/ab12…     the bytes, read-only
                        /leases/…/ab12…    a second name for each file that a process holds
                        /tmp/…             what is being fetched

A file's life is told by the file system alone, so a process may be killed at any moment:

- it appears whole, by a rename, after its sha256 was seen to be right;
- it is in use while it has a second name (a lease's, or one in a job's own tree), and only then it is never removed;
- its access time is when it was last used; its modification time is when its bytes were last read and found right, with
  a fraction of a second that no ordinary write leaves. A file that was written since, or not checked for a week or
  since the machine started (a power cut may empty a file), is read again before it is served.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from eagleray.contract.errors import StorageError
from eagleray.storage.disk import DiskFullError, disk_errors, remove_older
from eagleray.storage.owned import OwnedFolder, owned_folder, sweep_owned
from eagleray.storage.store import FileEntry, Store, check_key, file_entry

REVERIFY_AFTER_S = 7 * 24 * 3600.0
# Room that is left on the disk for everybody else.
RESERVE_BYTES = 64 << 20
# Of the lock of a process that was killed; one that still waits for it would at worst fetch twice.
LOCK_TTL_S = 24 * 3600.0
# Finer than this, which of two files was used last does not matter.
USED_AGAIN_S = 600.0
_STAMP_NS = 271_828_182
_TRIES = 5
_NO_LINK = (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP)
_BEGAN_TO_RUN = time.time() - time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))

Files = Mapping[str, tuple[str, FileEntry]]


@dataclass(frozen=True)
class CacheUsage:
    """What the cache holds, and how much of it jobs are using now."""

    files: int
    size_bytes: int
    in_use_bytes: int


@dataclass(frozen=True)
class _Kept:
    path: Path
    size_bytes: int
    used_at: float
    in_use: bool


class NodeCache:
    """The cache below `root`. Any number of processes may use it at once.

    Args:
        max_bytes: what it keeps; files in use do not go, even beyond it. None: half of the file system.
    """

    def __init__(self, root: Path, max_bytes: int | None = None, *, reverify_after_s: float = REVERIFY_AFTER_S) -> None:
        self.root = root.absolute()
        self._files = self.root / "files"
        self._max_bytes = max_bytes
        self._reverify_after_s = reverify_after_s
        self._lease: OwnedFolder | None = None

    def get(self, store: Store, key: str, entry: FileEntry | None = None) -> Path:
        """The bytes of `key` as a read-only file, which stays until `close` or the end of this process.

        Args:
            entry: what the object must be; None: whatever lies there now.

        Raises:
            NotFoundError: there is no such object, and its bytes are not here.
            StorageError: the store refuses, or the object is not `entry`.
        """
        with disk_errors(f"cache {key}", self.root):
            if entry is None:
                entry = self._entry_of(store, key)
            if self._lease is None:
                self._lease = OwnedFolder.make(self.root / "leases")
            path = self._lease.path / entry.sha256
            for _ in range(_TRIES):
                if self._link(entry, str(path)):
                    return path
                self._fetch(store, {entry.sha256: (key, entry)})
        raise self._lost(key)

    def materialise(self, store: Store, files: Files, into: Path) -> None:
        """Make the folder `into` (absent or empty) with the files `{relative path: (key, entry)}`, all or none.

        They are hard links to the cache where the file system allows it, so read-only and in use while they are there.

        Raises:
            DiskFullError: they do not fit, even after all that is not in use has gone.
            StorageError: the store refuses, or an object is not what its entry says.
        """
        part = into.with_name(f".{into.name}-{secrets.token_hex(4)}")
        try:
            with disk_errors(f"make {into.name} of {len(files)} files", into.parent):
                for folder in {check_key(name).rpartition("/")[0] for name in files} | {""}:
                    (part / folder).mkdir(parents=True, exist_ok=True)
                missing = dict(files)
                for _ in range(_TRIES):
                    missing = {
                        name: file for name, file in missing.items() if not self._link(file[1], f"{part}/{name}")
                    }
                    if not missing:
                        part.replace(into)
                        return
                    self._fetch(store, {entry.sha256: (key, entry) for key, entry in missing.values()})
            raise self._lost(next(iter(missing)))
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def usage(self) -> CacheUsage:
        kept = list(self._kept())
        return CacheUsage(
            len(kept), sum(one.size_bytes for one in kept), sum(one.size_bytes for one in kept if one.in_use)
        )

    def prune(self, max_bytes: int) -> int:
        """Remove what is not in use, least recently used first, until `max_bytes` are kept; how many bytes went."""
        kept = sorted(self._kept(), key=lambda one: one.used_at)
        total, freed = sum(one.size_bytes for one in kept), 0
        for one in kept:
            if total - freed <= max_bytes:
                break
            if not one.in_use:
                one.path.unlink(missing_ok=True)
                freed += one.size_bytes
        return freed

    def close(self) -> None:
        """Give back what `get` gave."""
        if self._lease is not None:
            self._lease.remove()
            self._lease = None

    def _path(self, sha256: str) -> Path:
        return self._files / sha256[:2] / sha256

    def _link(self, entry: FileEntry, target: str) -> bool:
        """Make `target` a second name of the file; False where it is not there, or was not right and had to go.

        Called for every file of a dataset, so with strings: building paths would take longer than the links.
        """
        path = f"{self._files}/{entry.sha256[:2]}/{entry.sha256}"
        # First the name, then the check: from here on nobody removes the file.
        try:
            os.link(path, target)
        except FileExistsError:
            pass
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            return self._copy(entry, path, target)
        if self._is_right(target, entry):
            return True
        _discard(target, path)
        return False

    def _copy(self, entry: FileEntry, path: str, target: str) -> bool:
        try:
            shutil.copyfile(path, target)
        except FileNotFoundError:
            return False
        # A copy is read anyway, so it is checked whole.
        if file_entry(Path(target)) == entry:
            Path(target).chmod(0o444)
            _use(path, Path(path).stat().st_mtime_ns)
            return True
        _discard(target, path)
        return False

    def _is_right(self, path: str, entry: FileEntry) -> bool:
        found = Path(path).stat()
        if found.st_size != entry.size_bytes:
            return False
        now = time.time()
        checked_at = found.st_mtime_ns // 10**9
        untouched = found.st_mtime_ns % 10**9 == _STAMP_NS
        # A clock that was set back makes a file look checked in the future.
        if untouched and max(_BEGAN_TO_RUN, now - self._reverify_after_s) < checked_at <= now + 60:
            if now - found.st_atime > USED_AGAIN_S:
                _use(path, found.st_mtime_ns)
            return True
        if file_entry(Path(path)) != entry:
            return False
        _stamp(Path(path))
        return True

    def _entry_of(self, store: Store, key: str) -> FileEntry:
        """What lies at `key` now. Where the store does not know, it is read once for each version of it."""
        found = store.identify(key)
        if found.sha256 is not None:
            return FileEntry(sha256=found.sha256, size_bytes=found.size_bytes)
        name = hashlib.sha256(f"{store.location}\n{key}\n{found.version}".encode()).hexdigest()
        note = self.root / "index" / name
        with suppress(OSError, ValueError):
            return FileEntry(sha256=note.read_text(encoding="ascii"), size_bytes=found.size_bytes)
        with owned_folder(self.root / "tmp") as folder:
            self._make_room(found.size_bytes)
            store.fetch_file(key, folder / "unknown", sha256=None)
            entry = file_entry(folder / "unknown")
            self._adopt(folder / "unknown", entry.sha256)
            note.parent.mkdir(parents=True, exist_ok=True)
            (folder / "note").write_text(entry.sha256, encoding="ascii")
            (folder / "note").replace(note)
        return entry

    def _fetch(self, store: Store, files: Files) -> None:
        """Bring `{sha256: (key, entry)}` into the cache; two processes that want the same do it once."""
        name = hashlib.sha256("".join(sorted(files)).encode()).hexdigest()[:32]
        (self.root / "locks").mkdir(parents=True, exist_ok=True)
        lock = self.root / "locks" / name
        with FileLock(lock):
            missing = {sha256: file for sha256, file in files.items() if not self._path(sha256).exists()}
            if missing:
                self._fetch_missing(store, missing)
        lock.unlink(missing_ok=True)

    def _fetch_missing(self, store: Store, missing: Files) -> None:
        needed = sum(entry.size_bytes for _, entry in missing.values())
        with owned_folder(self.root / "tmp") as folder:
            self._make_room(needed)
            try:
                store.fetch_many(missing, folder)
            except DiskFullError:
                # Others fill this disk, too: what is not in use goes, then once more.
                if not self.prune(0):
                    raise
                store.fetch_many(missing, folder)
            finally:
                # What came whole before a failure need not come again.
                for sha256 in missing:
                    if (folder / sha256).exists():
                        self._adopt(folder / sha256, sha256)

    def _adopt(self, path: Path, sha256: str) -> None:
        """Make a file whose sha256 was seen to be right one of the cache's."""
        _stamp(path)
        path.chmod(0o444)
        target = self._path(sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)

    def _make_room(self, needed_bytes: int) -> None:
        """Raises DiskFullError where there is no room before anything is fetched."""
        sweep_owned(self.root / "tmp", self.root / "leases")
        for entry in _scan(self.root / "locks"):
            remove_older(Path(entry.path), LOCK_TTL_S)
        usage = shutil.disk_usage(self.root)
        limit = usage.total // 2 if self._max_bytes is None else self._max_bytes
        self.prune(max(0, limit - needed_bytes))
        lacking = needed_bytes + RESERVE_BYTES - shutil.disk_usage(self.root).free
        if lacking > 0:
            self.prune(max(0, self.usage().size_bytes - lacking))
            free = shutil.disk_usage(self.root).free
            if free < needed_bytes:
                raise DiskFullError(
                    f"There is no room for {needed_bytes:,} bytes in {self.root}: {free:,} bytes are free.",
                    "Free some space there, or name another folder with EAGLERAY_HOME.",
                )

    def _kept(self) -> Iterator[_Kept]:
        for folder in _scan(self._files):
            for entry in _scan(Path(folder.path)):
                with suppress(FileNotFoundError):
                    found = entry.stat()
                    yield _Kept(Path(entry.path), found.st_size, found.st_atime, found.st_nlink > 1)

    def _lost(self, key: str) -> StorageError:
        return StorageError(
            f"'{key}' was fetched {_TRIES} times, and each time it was gone or damaged at once.",
            f"Check the disk of {self.root}.",
        )


def _scan(folder: Path) -> Iterable[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _stamp(path: Path) -> None:
    """Note that the file's bytes are right as of now."""
    now = time.time_ns()
    os.utime(path, ns=(now, now // 10**9 * 10**9 + _STAMP_NS))


def _use(path: str, mtime_ns: int) -> None:
    """Note that the file is used now. Not every file system keeps access times by itself."""
    with suppress(OSError):
        os.utime(path, ns=(time.time_ns(), mtime_ns))


def _discard(*paths: str) -> None:
    for path in paths:
        Path(path).unlink(missing_ok=True)
