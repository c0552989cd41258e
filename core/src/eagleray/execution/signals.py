"""Ctrl-C in two stages: the first asks the job to stop gracefully, the second ends it at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType


class StopSignals:
    """Owns SIGINT, SIGTERM and SIGHUP (the terminal is closed) while it is entered, in the main thread.

    Outside `graceful` (while an environment is built, say) there is nothing to save, so the first signal raises
    KeyboardInterrupt.
    """

    def __init__(self, on_stop: Callable[[], None]) -> None:
        self._on_stop = on_stop
        self._count = 0
        self.graceful = False
        self.cancelled = threading.Event()
        self._previous: dict[int, object] = {}

    @property
    def stop_requested(self) -> bool:
        return self._count > 0 or self.cancelled.is_set()

    def __enter__(self) -> StopSignals:
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            # Under `nohup` the job shall outlive its terminal.
            numbers.append(signal.SIGHUP)
        for number in numbers:
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def cancel(self) -> None:
        """As two signals at once, from any thread."""
        self.cancelled.set()
        if not self.graceful:
            os.kill(os.getpid(), signal.SIGINT)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        if not self.graceful:
            raise KeyboardInterrupt
        if self._count == 1:
            # Sending to sockets takes locks that the interrupted main thread may hold.
            threading.Thread(target=self._on_stop, daemon=True).start()
        else:
            self.cancelled.set()
