"""A plugin of a stranger that does what plugins should not: put on the path of a server, found as any other is.

It trains as echo does. `trouble` says what it does in its second epoch; `deaths` are failpoints, each reached in the
first attempt that saves that epoch's checkpoint, `save` being the middle of its own `save_checkpoint`.
"""

from __future__ import annotations

from pathlib import Path

ENTRY_POINTS = "[eagleray]\nstranger = eagleray_stranger\n"
METADATA = "Metadata-Version: 2.1\nName: eagleray-stranger\nVersion: 0.1\n"

TOP = """
from dataclasses import replace

from eagleray.contract import hookimpl
from eagleray.testing.echo import FRAMEWORK, TASKS

STRANGER = replace(
    FRAMEWORK,
    name="stranger",
    adapter="eagleray_stranger.adapter:StrangerAdapter",
    configs=dict.fromkeys(TASKS, "eagleray_stranger.config:StrangerConfig"),
)
HANGING = replace(STRANGER, name="hanging", adapter="eagleray_stranger.hanging:StrangerAdapter")


@hookimpl
def register_frameworks(register):
    register(STRANGER)
    register(HANGING)
"""

CONFIG = """
from pathlib import Path

from eagleray.testing.echo_config import EchoConfig


class StrangerConfig(EchoConfig):
    trouble: str = ""
    deaths: dict[int, str] = {}
    markers: Path | None = None
"""

ADAPTER = '''
import ctypes
import os
import signal

from eagleray.testing.echo_adapter import EchoAdapter


class StrangerAdapter(EchoAdapter):
    def _train_epoch(self, epoch):
        if epoch == 2:
            getattr(self, "_" + (self.config.trouble or "fine"))()
        return super()._train_epoch(epoch)

    def save_checkpoint(self, path):
        death = self._death(path)
        super().save_checkpoint(path)
        if death == "save":
            whole = (path / "state.npz").read_bytes()
            (path / "state.npz").write_bytes(whole[: len(whole) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        elif death:
            os.environ["EAGLERAY_FAILPOINTS"] = death + ":kill"

    def _death(self, path):
        """Where to die on the way of this checkpoint, once each."""
        epoch = self._epochs_saved = getattr(self, "_epochs_saved", self._resumed_from()) + 1
        marker = self.config.markers / str(epoch) if self.config.markers else None
        if epoch not in self.config.deaths or marker is None or marker.exists():
            return ""
        marker.write_text("")
        return self.config.deaths[epoch]

    def _resumed_from(self):
        return self.context.resume.epoch if self.context.resume else 0

    def _fine(self):
        pass

    def _raise(self):
        raise ZeroDivisionError("a stranger's own mistake")

    def _segfault(self):
        # In this very thread: after a signal from outside, training would go on until a handler has written its dump.
        ctypes.string_at(0)

    def _leave(self):
        os._exit(0)

    def _shout(self):
        line = b"x" * 99 + b"\\n"
        for _ in range(100):
            os.write(1, line * 10_000)
'''

HANGING = """
import time

time.sleep(3600)
"""


def write_stranger(folder: Path) -> Path:
    """A folder for PYTHONPATH that holds the plugin, installed."""
    package, about = folder / "eagleray_stranger", folder / "eagleray_stranger-0.1.dist-info"
    package.mkdir(parents=True)
    about.mkdir()
    for name, text in (("__init__", TOP), ("config", CONFIG), ("adapter", ADAPTER), ("hanging", HANGING)):
        (package / f"{name}.py").write_text(text, encoding="utf-8")
    (about / "entry_points.txt").write_text(ENTRY_POINTS, encoding="utf-8")
    (about / "METADATA").write_text(METADATA, encoding="utf-8")
    return folder
