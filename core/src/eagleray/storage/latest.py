"""Objects that are rewritten many times a minute: the newest bytes of each key get to the store, no caller waits."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from eagleray.storage.store import Store

RETRY_CAP_S = 30.0
# What is put within this time of another is written once: a second write would have to wait for its turn.
LINGER_S = 0.2


class LatestWriter:
    """Writes in a thread of its own where the store limits writes of a key, else at once.

    Args:
        failed: told of a failure when it begins, once until a write succeeds; the bytes are kept and tried again.
        allowed: asked before every write; where it says no, the bytes are dropped.
    """

    def __init__(
        self, store: Store, failed: Callable[[Exception], None], allowed: Callable[[], bool] = lambda: True
    ) -> None:
        self._store = store
        self._failed = failed
        self._allowed = allowed
        self._at_once = store.write_interval_s == 0
        self._changed = threading.Condition()
        self._waiting: dict[str, bytes] = {}
        self._failing = False
        self._flushing = False
        self._thread: threading.Thread | None = None

    def put(self, key: str, data: bytes) -> None:
        with self._changed:
            self._waiting.pop(key, None)
            self._waiting[key] = data
            if self._at_once:
                self._write(key, data)
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="eagleray-records", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> dict[str, bytes]:
        """Wait until all is written; what is not by then."""
        with self._changed:
            if self._at_once:
                for key, data in list(self._waiting.items()):
                    self._write(key, data)
                return dict(self._waiting)
            self._flushing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._waiting, timeout_s)
            self._flushing = False
            return dict(self._waiting)

    def _run(self) -> None:
        tried = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting))
                self._changed.wait_for(lambda: self._flushing, LINGER_S)
                # Another key's turn after a failure.
                key, data = list(self._waiting.items())[tried % len(self._waiting)]
            tried = 0 if self._write(key, data) else tried + 1
            if tried:
                time.sleep(random.uniform(0, min(RETRY_CAP_S, 0.5 * 2**tried)))

    def _write(self, key: str, data: bytes) -> bool:
        try:
            if self._allowed():
                self._store.put_bytes(key, data)
        except Exception as error:
            first, self._failing = not self._failing, True
            if first:
                self._failed(error)
            return False
        with self._changed:
            self._failing = False
            if self._waiting.get(key) is data:
                del self._waiting[key]
            self._changed.notify_all()
        return True
