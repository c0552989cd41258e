"""Folders for what is being unpacked, gone at the end, also of processes that were killed."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eagleray.environments.locking import LockTimeoutError, exclusive
from eagleray.storage.disk import disk_errors


@contextmanager
def temporary_folder(scratch: Path) -> Iterator[Path]:
    """A new folder below `scratch`, gone at the end; what killed processes left there goes first."""
    with disk_errors("make a temporary folder", scratch):
        scratch.mkdir(parents=True, exist_ok=True)
        _sweep(scratch)
        folder = scratch / secrets.token_hex(8)
        with exclusive(scratch / f"{folder.name}.lock", timeout_s=0):
            folder.mkdir()
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
                (scratch / f"{folder.name}.lock").unlink(missing_ok=True)


def _sweep(scratch: Path) -> None:
    for lock in scratch.glob("*.lock"):
        try:
            with exclusive(lock, timeout_s=0):
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                # No one else takes this name, so the lock may go.
                lock.unlink(missing_ok=True)
        except LockTimeoutError:
            continue
