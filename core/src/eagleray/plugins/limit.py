"""A limit on a plugin's code that may never return."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from eagleray.threads import run_aside

T = TypeVar("T")


class TookTooLong(Exception):
    """It was left behind."""


def within(seconds: float, call: Callable[[], T]) -> T:
    """What `call` returns or raises, run in a thread of its own: only a thread can be left behind.

    One that is left behind ends as soon as it is back in Python code, else with the process. What keeps the
    interpreter's lock to itself, a loop in C say, keeps this process too: nothing in it could notice.

    Raises:
        TookTooLong: it has not come back in time.
    """
    thread, future = run_aside(call, "eagleray-plugin")
    thread.join(seconds)
    if not future.done():
        _end(thread)
        raise TookTooLong
    return future.result()


def _end(thread: threading.Thread) -> None:
    import ctypes  # noqa: PLC0415 - saves every command that meets no such plugin some milliseconds

    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))
