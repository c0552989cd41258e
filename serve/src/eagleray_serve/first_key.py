"""The first admin's key: made once, kept in a file of the head that only its owner can read."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from eagleray.control.commands import SYSTEM, Commands
from eagleray.control.queries import Queries

FILE = "admin.key"


def ensure_admin_key(commands: Commands, queries: Queries, home: Path) -> Path:
    """Make an admin's key where no key was ever made; the file, which need not be there any more.

    Several replicas may start at once on one head: a lock lets one of them do it.
    """
    path = home / FILE
    home.mkdir(parents=True, exist_ok=True)
    with (home / f".{FILE}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not queries.keys():
            make_admin_key(commands, path)
    return path


def make_admin_key(commands: Commands, path: Path) -> str:
    """A new admin's key in the file `path`, and as the result."""
    made = commands.create_key(SYSTEM, name="admin", scopes=["admin"], projects=None)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(f"{made['key']}\n")
    temporary.replace(path)
    return str(made["key"])
