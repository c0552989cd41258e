"""End what `up` started, and only that."""

from __future__ import annotations

import shutil
from typing import Any

from eagleray.contract.errors import EaglerayError
from eagleray.settings import Settings
from eagleray_serve.local.processes import alive, end, marked
from eagleray_serve.local.state import ServerFolder, ServerState
from eagleray_serve.local.up import Say, join_ray


def down(settings: Settings, say: Say) -> dict[str, Any]:
    """End the server of this home. Jobs that run go on from their last checkpoint at the next `up`.

    Returns:
        `stopped`: whether there was one.
    """
    folder = ServerFolder(settings.home)
    with folder.locked():
        state = folder.load()
        if state is None:
            return {"stopped": False}
        if alive(state.pid) and state.pid in marked(state.mark):
            say("ending the control plane")
            _end_control_plane(state, folder, say)
        say("ending Ray")
        end(state.pid, state.mark, patience_s=20)
        shutil.rmtree(state.temp_dir, ignore_errors=True)
        folder.forget()
        return {"stopped": True, "server": state.server}


def _end_control_plane(state: ServerState, folder: ServerFolder, say: Say) -> None:
    """So that it closes its database in order; without it the database recovers by itself at the next start."""
    try:
        ray = join_ray(state, folder)
    except EaglerayError as error:
        say(f"Ray does not answer: {error.message}")
        return
    from eagleray.control.actor import shut_down  # noqa: PLC0415 - imports Ray, whose environment was set just now

    try:
        shut_down()
    finally:
        ray.shutdown()
