"""Datasets in the form that a plugin trains from, where their own is another: made once on a node, kept for a while."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from eagleray.contract import Dataset
from eagleray.datasets import prepare_form
from eagleray.environments.locking import LockTimeoutError, exclusive, shared

# Their pictures are links to files that would otherwise leave the node's cache.
KEEP_S = 3 * 24 * 3600.0
WAIT_S = 6 * 3600.0


def use_form(dataset: Dataset, wanted_formats: Sequence[str], root: Path, held: ExitStack) -> Dataset:
    """`dataset` in one of `wanted_formats`, made below `root` if nobody on this node has made it yet.

    Args:
        held: while it is open, the form stays.

    Raises:
        DatasetError: none of the formats holds the task.
        OSError: the disk is full.
    """
    root.mkdir(parents=True, exist_ok=True)
    # One at a time: workers of one node that want the same must not make it each for itself.
    with exclusive(root / "lock", timeout_s=WAIT_S):
        _sweep(root)
        found = prepare_form(dataset.path, dataset.task, wanted_formats, root, dataset.format).dataset
        if found.path.parent == root:
            held.enter_context(shared(_lock(found.path)))
            os.utime(found.path)
    return found


def _sweep(root: Path) -> None:
    """Remove forms that nobody uses or has used for days."""
    for folder in root.iterdir():
        with suppress(OSError, LockTimeoutError):
            if folder.is_dir() and time.time() - folder.stat().st_mtime > KEEP_S:
                with exclusive(_lock(folder), timeout_s=0):
                    shutil.rmtree(folder)


def _lock(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")
