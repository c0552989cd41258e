"""Notes, by Python's audit events, what a process writes outside its folders and whom it calls.

Forked children inherit the watch. Native code is seen only by what it leaves behind.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {
    "os.mkdir": 0,
    "os.remove": 0,
    "os.rmdir": 0,
    "os.rename": 1,
    "os.symlink": 1,
    "os.link": 1,
    "os.truncate": 0,
}
DEVICES = ("/dev/", "/proc/")


def watch(log: Path, allowed: Sequence[Path]) -> None:
    """From now on append to `log` a JSON line for every write outside `allowed` and every call to another machine.

    A call is also refused with OSError. A watch cannot be taken off again, so this is for a process of its own.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    roots = tuple(os.path.realpath(folder) for folder in allowed)
    here = {"localhost", "", socket.gethostname()}

    def note(kind: str, what: str) -> None:
        os.write(descriptor, (json.dumps({"kind": kind, "what": what}) + "\n").encode())

    def changed(path: Any) -> None:
        if isinstance(path, int) or path is None:
            return
        real = os.path.realpath(os.fsdecode(path))
        inside = any(real == root or real.startswith(root + os.sep) for root in roots)
        if not inside and not real.startswith(DEVICES):
            note("write", real)

    def called(host: Any) -> None:
        name = host.decode() if isinstance(host, bytes) else str(host or "")
        if name not in here and not name.startswith("127.") and name != "::1":
            note("call", name)
            raise OSError(f"no network in conformance tests: {name}")

    sys.addaudithook(_hook(changed, called))


def _hook(changed: Callable[[Any], None], called: Callable[[Any], None]) -> Callable[[str, tuple[Any, ...]], None]:
    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITING:
                changed(path)
        elif event in CHANGES:
            changed(arguments[CHANGES[event]])
        elif event in {"socket.connect", "socket.sendto"}:
            address = arguments[1]
            if isinstance(address, tuple):
                called(address[0])
        elif event in {"socket.getaddrinfo", "socket.gethostbyname"}:
            called(arguments[0])

    return hook
