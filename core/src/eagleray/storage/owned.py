"""Folders that belong to a process: once it has ended, however it did, anybody may remove them."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout


class OwnedFolder:
    """A folder and, beside it, a lock that its process holds for as long as it lives."""

    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def make(cls, parent: Path) -> OwnedFolder:
        parent.mkdir(parents=True, exist_ok=True)
        name = f"{os.getpid()}-{secrets.token_hex(6)}"
        # The lock stands before the folder does, so that nobody ever sees the one without the other.
        lock = FileLock(parent / f"{name}.lock")
        lock.acquire()
        (parent / name).mkdir()
        return cls(parent / name, lock)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()


@contextmanager
def owned_folder(parent: Path) -> Iterator[Path]:
    """A new folder in `parent`; gone at the end, or soon after this process's."""
    folder = OwnedFolder.make(parent)
    try:
        yield folder.path
    finally:
        folder.remove()


def sweep_owned(*parents: Path) -> None:
    """Remove the folders of processes that have ended."""
    for parent in parents:
        for path in list(parent.glob("*.lock")):
            lock = FileLock(path, blocking=False)
            with suppress(Timeout), lock:
                shutil.rmtree(path.with_suffix(""), ignore_errors=True)
                path.unlink(missing_ok=True)
