"""Advisory locks over files, between processes, let go by the kernel when the last holder dies.

flock itself and not the filelock package, for two things that it does not offer: a shared lock (many jobs use one
environment, pruning wants it alone), and a descriptor that child processes inherit, so that an installer which outlives
its killed parent still keeps the next builder out.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

POLL_S = 0.1


class LockTimeoutError(TimeoutError):
    """Somebody else held the lock for the whole time."""


@contextmanager
def exclusive(path: Path, *, timeout_s: float, waiting: Callable[[], None] = lambda: None) -> Iterator[int]:
    """Hold the lock alone; yields its descriptor, for children to inherit.

    Args:
        timeout_s: how long to wait for others; 0 tries once.
        waiting: called once when somebody else holds it.

    Raises:
        LockTimeoutError: it was not free in time.
    """
    with _opened(path) as descriptor:
        if not _try(descriptor, fcntl.LOCK_EX):
            deadline = time.monotonic() + timeout_s
            if timeout_s > 0:
                waiting()
            while not _try(descriptor, fcntl.LOCK_EX):
                if time.monotonic() >= deadline:
                    raise LockTimeoutError(str(path))
                time.sleep(POLL_S)
        yield descriptor


@contextmanager
def shared(path: Path) -> Iterator[None]:
    """Hold the lock together with others; waits while somebody holds it alone."""
    with _opened(path) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield


def is_held(path: Path) -> bool:
    """Whether anybody holds the lock now, shared or alone."""
    if not path.exists():
        return False
    with _opened(path) as descriptor:
        return not _try(descriptor, fcntl.LOCK_EX)


def _try(descriptor: int, mode: int) -> bool:
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Lock files are never deleted: two holders of one name must always meet at one inode.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
