"""Durable writing on a file system, and what its refusals mean."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from eagleray.contract.errors import DiskFullError, StorageError
from eagleray.storage.store import CHUNK_BYTES, TEMPORARY_PREFIX, FileEntry

__all__ = [
    "DiskFullError",
    "disk_errors",
    "make_folders",
    "remove_older",
    "sync_folder",
    "temporary_file",
    "write_file",
]


@contextmanager
def disk_errors(doing: str, folder: Path) -> Iterator[None]:
    """Turn an OSError into a StorageError that says what was being done (`doing`: "write x") and where.

    Raises:
        DiskFullError: there is no space.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(
                f"Cannot {doing}: no space left in {folder} ({_free(folder)}).",
                "Free some space there, or name another folder with EAGLERAY_STORAGE (the caches': EAGLERAY_HOME).",
            ) from error
        reason = error.strerror or str(error)
        raise StorageError(f"Cannot {doing} in {folder}: {reason}.", "Check the folder and its permissions.") from error


def _free(folder: Path) -> str:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return f"{shutil.disk_usage(folder).free:,} bytes free"
    except OSError:
        return "free space unknown"


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync a folder; they make names durable by themselves or not at all.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def make_folders(folder: Path) -> None:
    """`mkdir -p`, durable: every new folder's name is synced in its parent."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        # Not `exist_ok`: that fails where another process makes the folder and removes it again meanwhile.
        with suppress(FileExistsError):
            new.mkdir()
        sync_folder(new.parent)


@contextmanager
def temporary_file(folder: Path) -> Iterator[Path]:
    """A new file in `folder`; gone at the end unless it was renamed."""
    path = folder / f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(8)}"
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def write_file(path: Path, source: BinaryIO, *, durable: bool = True) -> FileEntry:
    """Write `source` to its end into `path`; the identity of what was written.

    Args:
        durable: synced, so that it survives a power cut.
    """
    digest = hashlib.sha256()
    size_bytes = 0
    with path.open("wb") as file:
        while chunk := source.read(CHUNK_BYTES):
            file.write(chunk)
            digest.update(chunk)
            size_bytes += len(chunk)
        file.flush()
        if durable:
            os.fsync(file.fileno())
        if os.fstat(file.fileno()).st_size != size_bytes:
            raise OSError(errno.EIO, "the file is shorter than what was written to it")
    return FileEntry(sha256=digest.hexdigest(), size_bytes=size_bytes)


def remove_older(path: Path, older_than_s: float) -> bool:
    """Remove a file that nobody has written for so long. Not an error for someone who may only read."""
    with suppress(OSError):
        if time.time() - path.stat().st_mtime > older_than_s:
            path.unlink()
            return True
    return False
