"""One call of a command by its name, and its answer as plain data that crosses processes."""

from __future__ import annotations

import logging
from typing import Any

from eagleray.contract.errors import EaglerayError
from eagleray.control.commands import Commands
from eagleray.control.errors import ControlPlaneAwayError, InternalError

METHODS = frozenset(name for name, value in vars(Commands).items() if callable(value) and not name.startswith("_"))
logger = logging.getLogger(__name__)


def answer_of(plane: Commands, method: str, arguments: Any, keywords: Any) -> dict[str, Any]:
    """`{"value"}`, or `{"error"}` with what can be raised again over there; never any other exception."""
    if method not in METHODS:
        return {"error": ControlPlaneAwayError(f"The control plane has no command '{method}'.", "Upgrade it.")}
    try:
        return {"value": getattr(plane, method)(*arguments, **keywords)}
    except EaglerayError as error:
        return {"error": error.with_traceback(None)}
    except Exception as error:
        logger.exception("The command %s failed.", method)
        what = f"{type(error).__name__}: {one_line(error)}"
        return {"error": InternalError(f"The control plane failed at '{method}': {what}", "Its log says more.")}


def one_line(error: BaseException) -> str:
    """What it says, short enough for a message, and encodable whatever it names."""
    return " ".join(str(error).split())[:300].encode(errors="replace").decode()
