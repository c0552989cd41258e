"""The driver's line to the control plane: bounded, in order, at least once, and never in training's way."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from eagleray.contract.errors import EaglerayError, UnknownNameError
from eagleray.control.commands import Commands, Plain
from eagleray.control.errors import FencedError, RejectedError

HEARTBEAT_S = 5.0
BATCH = 500
BATCH_BYTES = 4 << 20
# What waits in this process at most, of what may be lost; a line can have 64 KiB.
MAX_EVENTS = 20_000
MAX_BYTES = 64 << 20
_FLUSH_S = 0.2
_LONGEST_PAUSE_S = 10.0
# What may be lost when the control plane is away for long; the rest is kept whatever it takes.
_LOSSY = frozenset({"progress", "log", "heartbeat"})
logger = logging.getLogger(__name__)


class Reporter:
    """`emit` from any thread; a thread of its own sends.

    Args:
        connect: gives a connection; called again after a failure.
        on_fenced: called once, in that thread, where the attempt may say nothing more.
    """

    def __init__(
        self,
        job_id: int,
        attempt: int,
        connect: Callable[[], Commands],
        on_fenced: Callable[[], None],
        *,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self._job_id = job_id
        self._attempt = attempt
        self._connect = connect
        self._on_fenced = on_fenced
        self._heartbeat_s = heartbeat_s
        self._commands: Commands | None = None
        self._events: deque[tuple[Plain, int]] = deque()
        self._bytes = 0
        # Of a batch that was refused whole, to be sent one after the other; the reporter's thread only.
        self._parts: deque[list[Plain]] = deque()
        self._dropped = 0
        self._seq = 0
        self._changed = threading.Condition()
        self._closing = False
        self.fenced = False
        self._thread = threading.Thread(target=self._serve, name="eagleray-reporter", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def emit(self, kind: str, **data: Any) -> None:
        size = _size(data)
        with self._changed:
            if kind == "progress" and self._events and self._events[-1][0]["type"] == "progress":
                self._bytes -= self._events.pop()[1]  # only the newest says anything
            elif kind in _LOSSY and (len(self._events) >= MAX_EVENTS or self._bytes + size > MAX_BYTES):
                self._dropped += 1
                return
            self._events.append(({"type": kind, **data}, size))
            self._bytes += size
            self._changed.notify_all()

    def close(self, timeout_s: float) -> bool:
        """Wait until everything is acknowledged, or may not be said any more; whether it was in time."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _serve(self) -> None:
        pause = _FLUSH_S
        pending: list[Plain] = []
        while True:
            if not pending:
                pending = self._parts.popleft() if self._parts else self._take()
                if not pending:
                    return
            try:
                self._send(pending)
            except (FencedError, UnknownNameError) as error:
                logger.warning("%s", error)
                self.fenced = True
                self._on_fenced()
                return
            except RejectedError as error:
                pending = self._without_the_rejected(pending, error)
                continue
            except EaglerayError as error:
                logger.warning("The control plane is told later: %s", error)
                self._commands = None
                self._sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_S)
                continue
            pending, pause = [], _FLUSH_S

    def _take(self) -> list[Plain]:
        """The next batch with its numbers; a heartbeat where there is nothing to say; nothing: it is over."""
        deadline = time.monotonic() + self._heartbeat_s
        with self._changed:
            while not self._events and not self._closing and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            if not self._events and self._closing:
                return []
            if self._events and not self._closing:
                self._changed.wait(_FLUSH_S)  # what comes together goes together
            taken: list[Plain] = []
            size = 0
            while self._events and len(taken) < BATCH and (not taken or size + self._events[0][1] <= BATCH_BYTES):
                event, bytes_ = self._events.popleft()
                taken.append(event)
                size += bytes_
            self._bytes -= size
            if self._dropped:
                taken.append(
                    {
                        "type": "warning",
                        "message": f"{self._dropped} log lines or progress marks were lost "
                        "while the control plane was away; the log files in the store are whole.",
                    }
                )
                self._dropped = 0
            numbered = []
            for event in taken or [{"type": "heartbeat"}]:
                self._seq += 1
                numbered.append({"seq": self._seq, **event})
            return numbered

    def _without_the_rejected(self, events: list[Plain], error: RejectedError) -> list[Plain]:
        """What is still to be sent of a batch of which something cannot be kept: that, and that only, is dropped."""
        if len(events) > 1:
            half = len(events) // 2
            self._parts.appendleft(events[half:])
            return events[:half]
        kind = events[0]["type"]
        logger.warning("The control plane refuses an event of type '%s': %s", kind, error)
        message = f"An event of type '{kind}' is missing: {error.message}"
        return [{"seq": events[0]["seq"], "type": "warning", "message": message}] if kind != "warning" else []

    def _send(self, events: list[Plain]) -> None:
        if self._commands is None:
            self._commands = self._connect()
        self._commands.record(self._job_id, self._attempt, events)

    def _sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def _size(value: Any) -> int:
    """Bytes of memory, near enough."""
    if isinstance(value, dict):
        return 64 + sum(_size(key) + _size(item) for key, item in value.items())
    return 64 + sum(map(_size, value)) if isinstance(value, list | tuple) else sys.getsizeof(value)
