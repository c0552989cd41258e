"""Everything a worker prints, native code included, in a file that outlives it, and live in the driver."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from eagleray.execution.channel import WorkerChannel
from eagleray.settings import Settings

POLL_S = 0.2
MAX_CHUNK_BYTES = 64 * 1024


def log_path(settings: Settings, job_id: int, attempt: int, rank: int) -> Path:
    return settings.home / "logs" / f"job-{job_id}" / f"attempt-{attempt}-worker-{rank}.log"


class WorkerLog:
    """Tails the file that stdout and stderr go to, and sends its lines."""

    def __init__(self, path: Path, rank: int, channel: WorkerChannel) -> None:
        self._path = path
        self._rank = rank
        self._channel = channel
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._tail, name="eagleray-log", daemon=True)
        self._thread.start()

    def close(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self._done.set()
        self._thread.join(5)

    def _tail(self) -> None:
        with self._path.open("rb") as file:
            rest = b""
            while True:
                last = self._done.is_set()
                while chunk := file.read(MAX_CHUNK_BYTES):
                    lines = (rest + chunk).split(b"\n")
                    rest = lines.pop()[-MAX_CHUNK_BYTES:]
                    self._send(lines)
                if last:
                    self._send([rest] if rest else [])
                    return
                self._done.wait(POLL_S)

    def _send(self, lines: list[bytes]) -> None:
        if lines:
            # A progress bar rewrites its line by carriage returns; the last state is the line.
            texts = [line.decode(errors="replace").rstrip("\r").rpartition("\r")[2] for line in lines]
            self._channel.send({"type": "log", "rank": self._rank, "lines": texts})


def capture_output(
    settings: Settings, job_id: int, attempt: int, rank: int, channel: WorkerChannel, node: str
) -> WorkerLog:
    """Send file descriptors 1 and 2 of this process into the log file from now on; `node` is its Ray node id."""
    path = log_path(settings, job_id, attempt, rank)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    stat = path.stat()
    place = {"node": node, "log": str(path), "inode": [stat.st_dev, stat.st_ino]}
    channel.send({"type": "hello", "rank": rank, "pid": os.getpid(), **place})
    return WorkerLog(path, rank, channel)
