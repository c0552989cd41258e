"""Durable writing on a file system, and what its refusals mean."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from eagleray.contract.errors import StorageError


@contextmanager
def disk_errors(doing: str, folder: Path) -> Iterator[None]:
    """Turn an OSError into a StorageError that says what was being done (`doing`: "write x") and where."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"Cannot {doing}: no space left in {folder} ({_free(folder)}).",
                "Free some space there, or name another folder with EAGLERAY_STORAGE.",
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
