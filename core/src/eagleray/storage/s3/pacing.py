"""At most one write a second to a key: R2 answers 429 to more."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_MAX_KEYS = 4096


class WritePacer:
    """One of these per bucket and process; writers of one key take turns."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._turns: dict[str, threading.Lock] = {}
        self._last: dict[str, float] = {}

    @contextmanager
    def turn(self, key: str) -> Iterator[bool]:
        """The only writer of `key` in this process while it lasts; yields whether another wrote a moment ago."""
        with self._lock:
            turn = self._turns.setdefault(key, threading.Lock())
        with turn:
            yield self.wait_s(key) > 0
        with self._lock:
            if len(self._last) > _MAX_KEYS:
                self._forget()

    def wait_s(self, key: str) -> float:
        """Seconds until `key` may be written."""
        last = self._last.get(key)
        return 0.0 if last is None else max(0.0, last + self._interval_s - time.monotonic())

    def wait(self, key: str) -> None:
        """Sleep until `key` may be written, and count that as written. Before every attempt, also a repeated one."""
        time.sleep(self.wait_s(key))
        self._last[key] = time.monotonic()

    def written(self, key: str) -> None:
        """The write is over; the server may have counted it only now."""
        self._last[key] = time.monotonic()

    def _forget(self) -> None:
        now = time.monotonic()
        for key in [key for key, last in self._last.items() if now - last > self._interval_s]:
            del self._last[key]
            if not self._turns[key].locked():
                del self._turns[key]
