"""Places where a test can make this process die, raise or run out of disk.

`EAGLERAY_FAILPOINTS="ckpt.after_file:kill,ckpt.before_manifest:raise"`; unset, a failpoint is one look-up.
"""

from __future__ import annotations

import errno
import os
import signal

from eagleray.contract.errors import ConfigError

ENVIRONMENT_VARIABLE = "EAGLERAY_FAILPOINTS"
NAMES = (
    "ckpt.after_file",
    "ckpt.before_manifest",
    "ckpt.after_manifest",
    "s3.after_part",
    "job.after_create",
    "control.before_commit",
    "control.after_commit",
    "control.before_submit",
    "control.after_submit",
    "control.before_stop",
    "control.after_stop",
    "dataset.after_file",
    "dataset.before_manifest",
    "dataset.after_manifest",
    "dataset.layout_begun",
    "dataset.layout_file",
    "dataset.layout_done",
    "dataset.version_gone",
    "dataset.removal_begun",
    "upload.after_part",
)
ACTIONS = ("kill", "raise", "enospc")


class FailpointReached(RuntimeError):
    """What the action `raise` raises."""


def failpoint(name: str) -> None:
    """Do as the environment says: SIGKILL to this process, FailpointReached, OSError(ENOSPC) or nothing."""
    setting = os.environ.get(ENVIRONMENT_VARIABLE)
    if not setting:
        return
    action = _parse(setting).get(name)
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "raise":
        raise FailpointReached(name)
    elif action == "enospc":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _parse(setting: str) -> dict[str, str]:
    actions = {}
    for item in setting.split(","):
        name, _, action = item.strip().partition(":")
        if name not in NAMES or action not in ACTIONS:
            raise ConfigError(
                f"{ENVIRONMENT_VARIABLE} holds '{item}'.",
                f"Write NAME:ACTION with a name of {', '.join(NAMES)} and an action of {', '.join(ACTIONS)}.",
            )
        actions[name] = action
    return actions
