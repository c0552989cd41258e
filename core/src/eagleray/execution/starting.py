"""Ray gives a node some time to start, fixed in its code, which a busy machine may not keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
STARTS = 3


def start_again(begin: Callable[[], T], say: Callable[[str], None] = lambda _: None) -> T:
    """What `begin` returns. Where it raises that Ray was late it is called again, `STARTS` times in all.

    `begin` ends what it had begun before it raises.
    """
    for _ in range(STARTS - 1):
        try:
            return begin()
        except Exception as error:
            if "timed out during startup" not in str(error):
                raise
        say("Ray did not start in its own time; starting it again")
    return begin()
