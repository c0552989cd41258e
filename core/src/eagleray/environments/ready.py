"""What is on the disk: an environment counts only once its READY marker is there, and the marker is written last."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eagleray.contract.errors import EnvironmentBuildError
from eagleray.environments.lock import Lock, environment_name
from eagleray.environments.locking import shared

MARKER = "READY"


@dataclass(frozen=True)
class BuiltEnvironment:
    """An environment that may be used. `seconds` is what getting it took; `reused` says that it was there already."""

    path: Path
    python: Path
    seconds: float
    reused: bool


def build_lock_path(root: Path, name: str) -> Path:
    """Held alone by whoever builds or removes the environment."""
    return root / ".locks" / f"{name}.lock"


def use_lock_path(root: Path, name: str) -> Path:
    """Held together by all who use the environment."""
    return root / ".locks" / f"{name}.use"


def python_of(path: Path) -> Path:
    return path / "bin" / "python"


def is_ready(lock: Lock, root: Path) -> BuiltEnvironment | None:
    """The lock's environment if it is complete, which also makes it the most recently used; else None."""
    started = time.perf_counter()
    path = root / environment_name(lock)
    if read_marker(path) is None:
        return None
    # Another user's environment, or a disk mounted read-only, can still be used.
    with suppress(OSError):
        os.utime(path / MARKER)
    return BuiltEnvironment(path, python_of(path), time.perf_counter() - started, reused=True)


def read_marker(path: Path) -> dict[str, Any] | None:
    """The marker of a complete environment whose interpreter still exists; else None."""
    try:
        marker = json.loads((path / MARKER).read_bytes())
    except (OSError, ValueError):
        return None
    # The base interpreter may have been upgraded away under the environment's link.
    whole = isinstance(marker, dict) and marker.get("name") == path.name and os.access(python_of(path), os.X_OK)
    return marker if whole else None


def write_marker(path: Path, lock: Lock, *, imported: bool) -> None:
    """Make the environment count, at once or not at all. The marker's modification time is the time of last use.

    Args:
        imported: whether its modules were imported, not only found.
    """
    marker = {
        "name": path.name,
        "built_at": time.time(),
        "lock": lock.reference,
        "imported": imported,
        "versions": {pin.name: pin.version for pin in lock.requirements if not pin.marker or _unique(lock, pin.name)},
    }
    temporary = path / f".{MARKER}.new"
    with temporary.open("w") as file:
        json.dump(marker, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path / MARKER)
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _unique(lock: Lock, name: str) -> bool:
    return len(lock.versions(name)) == 1


@contextmanager
def in_use(environment: Path) -> Iterator[Path]:
    """Keep an environment from being removed, for as long as this process lives in the block.

    Args:
        environment: its folder.

    Raises:
        EnvironmentBuildError: it is not (or no longer) complete.
    """
    with shared(use_lock_path(environment.parent, environment.name)):
        # It may have been removed between the caller's look and the lock.
        if read_marker(environment) is None:
            raise EnvironmentBuildError(
                f"The environment {environment.name} is not there, or was removed.", "Try: eagleray envs build"
            )
        with suppress(OSError):
            os.utime(environment / MARKER)
        yield environment
