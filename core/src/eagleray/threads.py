"""Work in a thread that may be left behind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def run_aside(call: Callable[[], T], name: str) -> tuple[threading.Thread, Future[T]]:
    """Begin `call` in a thread that keeps no process alive, as a pool's would; the thread, and what it leads to."""
    future: Future[T] = Future()

    def target() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread, future
