"""A child process with a time limit that holds: its output comes line by line, and no descendant outlives it."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

TAIL_LINES = 20
_QUIET_S = 0.5


class ProcessFailedError(Exception):
    """The child ended with another status than 0. `tail` holds its last lines."""

    def __init__(self, status: int, tail: Sequence[str]) -> None:
        super().__init__(status, tail)
        self.status = status
        self.tail = tail


def stream(
    argv: Sequence[str],
    *,
    say: Callable[[str], None],
    deadline: float,
    environ: Mapping[str, str],
    directory: Path,
    keeps_open: Sequence[int] = (),
) -> None:
    """Run a command; its stdout and stderr go to `say`, a line at a time.

    Args:
        deadline: `time.monotonic()` value at which the child's whole process group is killed.
        keeps_open: descriptors that the child inherits.

    Raises:
        ProcessFailedError: its exit status is not 0.
        TimeoutError: the deadline passed.
    """
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(environ),
        cwd=directory,
        # A group of its own: Ctrl-C reaches the parent alone, which then ends the whole group.
        start_new_session=True,
        pass_fds=tuple(keeps_open),
    )
    tail = deque[str](maxlen=TAIL_LINES)
    assert process.stdout is not None
    try:
        for line in _lines(process, process.stdout, deadline):
            tail.append(line)
            say(line)
        status = process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired as error:
        raise TimeoutError from error
    finally:
        # Also after a clean end: a grandchild left behind must not go on writing.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    if status != 0:
        raise ProcessFailedError(status, tuple(tail))


def _lines(process: subprocess.Popen[bytes], stream: IO[bytes], deadline: float) -> Iterator[str]:
    """Lines as they come, until the output ends, or the child has ended and nothing more comes."""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            if not selector.select(min(left, _QUIET_S)):
                if process.poll() is not None:
                    break
                continue
            chunk = os.read(stream.fileno(), 65536)
            if not chunk:
                break
            *whole, rest = (rest + chunk).split(b"\n")
            yield from filter(None, map(_text, whole))
    if text := _text(rest):
        yield text


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace").rstrip()
