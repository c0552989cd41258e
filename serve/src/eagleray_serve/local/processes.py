"""The processes of one server, found by a mark in their environment, which children inherit."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

MARK = "EAGLERAY_CLUSTER"
PROC = Path("/proc")


def marked(mark: str) -> list[int]:
    """Processes that carry `mark`. Empty where the system has no /proc."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in PROC.iterdir() if PROC.is_dir() else ():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def alive(pid: int) -> bool:
    """Whether the process is there, and not just waiting to be collected by its parent."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with suppress(OSError, IndexError):
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


def end(pid: int, mark: str, *, patience_s: float) -> None:
    """End the process `pid`, all that carry `mark`, and their children: first by request, then by force."""
    # Ray's agents write their title over their environment, and so over the mark: they are known as children only.
    family = _with_children({pid, *marked(mark)} if alive(pid) and _is_ours(pid, mark) else set(marked(mark)))
    for number in (signal.SIGTERM, signal.SIGKILL):
        for each in _left(family, mark):
            with suppress(ProcessLookupError):
                os.kill(each, number)
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if not _left(family, mark):
                return
            time.sleep(0.2)


def _with_children(pids: set[int]) -> dict[int, str]:
    """`pids` and all below them, each with when it started: a number may be used again."""
    parents = {}
    for entry in PROC.iterdir() if PROC.is_dir() else ():
        if entry.name.isdigit() and (facts := _stat(int(entry.name))):
            parents[int(entry.name)] = int(facts[1])
    found, grown = set(pids), True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found, grown = found | more, bool(more)
    return {pid: facts[19] if (facts := _stat(pid)) else "" for pid in found if pid != os.getpid()}


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third on: state, parent, …; the 20th of them is when it started."""
    with suppress(OSError):
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return []


def _left(family: dict[int, str], mark: str) -> list[int]:
    same = [pid for pid, started in family.items() if alive(pid) and (not started or _stat(pid)[19:20] == [started])]
    return list({*same, *(pid for pid in marked(mark) if alive(pid))})


def _is_ours(pid: int, mark: str) -> bool:
    """Numbers of processes are used again, so one alone proves nothing."""
    return not PROC.is_dir() or pid in marked(mark)
