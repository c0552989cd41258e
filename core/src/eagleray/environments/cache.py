"""The environments on this node: which are there, what they weigh, and which may go."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from eagleray.environments.locking import LockTimeoutError, exclusive, is_held
from eagleray.environments.ready import MARKER, build_lock_path, in_use, read_marker, use_lock_path

__all__ = ["KeptEnvironment", "in_use", "list_environments", "prune"]

_DAY_S = 86_400.0


@dataclass(frozen=True)
class KeptEnvironment:
    """An environment's folder.

    Attributes:
        state: `ready`, `building` (somebody is at it), or `unfinished` (its builder died; nobody uses it).
        in_use: a process keeps it now.
        last_used: seconds since 1970.
        apparent_bytes: the sum of its files.
        unique_bytes: what removing it frees; files hard-linked to uv's cache or another environment are not in it.
    """

    name: str
    path: Path
    state: str
    in_use: bool
    last_used: float
    lock: str
    apparent_bytes: int
    unique_bytes: int


def list_environments(root: Path) -> list[KeptEnvironment]:
    """All environments under `root`, most recently used first."""
    if not root.is_dir():
        return []
    folders = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return sorted((_look(path) for path in folders), key=lambda kept: kept.last_used, reverse=True)


def prune(
    root: Path,
    *,
    keep: Collection[str] = (),
    max_count: int | None = None,
    older_than_days: float | None = None,
    dry_run: bool = False,
) -> list[KeptEnvironment]:
    """Remove environments, least recently used first; returns what was (or with `dry_run` would be) removed.

    Unfinished ones always go. One that is in use, being built, or named in `keep` never does.

    Args:
        max_count: keep this many of the ready ones.
        older_than_days: remove what was not used for so long. Without either, every one that may go goes.
    """
    environments = list_environments(root)
    kept = [found for found in environments if found.state == "ready" and (found.name in keep or found.in_use)]
    free = [found for found in environments if found.state == "ready" and found not in kept]
    going = [found for found in environments if found.state == "unfinished" and found.name not in keep]
    oldest = time.time() - older_than_days * _DAY_S if older_than_days is not None else None
    for place, found in enumerate(free):
        too_many = max_count is not None and len(kept) + place >= max_count
        too_old = oldest is not None and found.last_used < oldest
        if too_many or too_old or (max_count is None and oldest is None):
            going.append(found)
    going.sort(key=lambda found: found.last_used)
    return [found for found in going if dry_run or _remove(found)]


def _remove(found: KeptEnvironment) -> bool:
    """Remove it unless somebody builds or uses it by now, or has used it since we looked."""
    root = found.path.parent
    with ExitStack() as locks:
        try:
            locks.enter_context(exclusive(build_lock_path(root, found.name), timeout_s=0))
            locks.enter_context(exclusive(use_lock_path(root, found.name), timeout_s=0))
        except LockTimeoutError:
            return False
        if _last_used(found.path) > found.last_used:
            return False
        # The marker first: a removal that dies half-way leaves nothing that counts.
        (found.path / MARKER).unlink(missing_ok=True)
        shutil.rmtree(found.path)
    return True


def _look(path: Path) -> KeptEnvironment:
    marker = read_marker(path)
    building = marker is None and is_held(build_lock_path(path.parent, path.name))
    apparent, unique = _sizes(path)
    return KeptEnvironment(
        name=path.name,
        path=path,
        state="ready" if marker else "building" if building else "unfinished",
        in_use=is_held(use_lock_path(path.parent, path.name)),
        last_used=_last_used(path),
        lock=str(marker.get("lock", "")) if marker else "",
        apparent_bytes=apparent,
        unique_bytes=unique,
    )


def _last_used(path: Path) -> float:
    for place in (path / MARKER, path):
        try:
            return place.stat().st_mtime
        except FileNotFoundError:
            continue
    return 0.0


def _sizes(path: Path) -> tuple[int, int]:
    apparent = unique = 0
    for status in _files(path):
        apparent += status.st_size
        unique += status.st_size if status.st_nlink == 1 else 0
    return apparent, unique


def _files(path: Path) -> Iterator[os.stat_result]:
    try:
        entries = list(os.scandir(path))
    except OSError:
        return  # removed, or rebuilt, while we look
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path))
            continue
        try:
            yield entry.stat(follow_symlinks=False)
        except OSError:
            continue
