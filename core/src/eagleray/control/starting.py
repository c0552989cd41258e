"""A control plane that may have to wait for its database or its store, and says so meanwhile.

Ray never restarts an actor whose `__init__` raises, so nothing that may pass by itself is allowed to end it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from eagleray.contract.errors import ConfigError, EaglerayError
from eagleray.control.answering import answer_of
from eagleray.control.errors import ControlPlaneAwayError, UnusableDatabaseError
from eagleray.control.plane import ControlPlane

# What does not pass by itself. It is tried again too, since someone may put it right, and told as it is.
LASTING = (ConfigError, UnusableDatabaseError)
_LONGEST_PAUSE_S = 10.0
logger = logging.getLogger(__name__)


class StartingPlane:
    """Opens a control plane in a thread of its own, as often as it takes.

    Args:
        open_plane: one that has been started, or an error; called again after an error.
    """

    def __init__(self, open_plane: Callable[[], ControlPlane], *, pause_s: float = 0.5) -> None:
        self._open = open_plane
        self._pause_s = pause_s
        self._plane: ControlPlane | None = None
        self._error: EaglerayError = _starting("it has only just begun")
        self._tried = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="eagleray-starting", daemon=True)
        self._thread.start()

    def call(self, method: str, arguments: Any, keywords: Any) -> dict[str, Any]:
        """As `answer_of`; what is missing, as long as anything is."""
        # The usual start is quick, and then nobody hears of it.
        self._tried.wait(5.0)
        if self._plane is None:
            return {"error": self._error.with_traceback(None)}
        return answer_of(self._plane, method, arguments, keywords)

    def close(self) -> None:
        self._closed.set()
        self._thread.join(30.0)
        if self._plane is not None:
            self._plane.close()

    def _serve(self) -> None:
        pause_s = self._pause_s
        while not self._closed.is_set():
            try:
                self._plane = self._open()
                return
            except LASTING as error:
                logger.error("The control plane cannot start: %s", error)
                self._error = error
            except Exception as error:
                logger.warning("The control plane cannot start yet.", exc_info=True)
                self._error = _starting(f"{type(error).__name__}: {error}")
            finally:
                self._tried.set()
            self._closed.wait(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


def _starting(why: str) -> ControlPlaneAwayError:
    text = " ".join(why.split())[:500]
    return ControlPlaneAwayError(f"The control plane is starting: {text}", "It goes on trying by itself.")
