"""Settings from the environment (`EAGLERAY_*`)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """Where things are.

    Attributes:
        home: `EAGLERAY_HOME`, default `~/.eagleray`: environments, caches, work folders of this node.
        storage: `EAGLERAY_STORAGE`, a folder; default `{home}/storage`.
        blocked_plugins: `EAGLERAY_BLOCKED_PLUGINS`, comma-separated entry-point names that are not loaded.
    """

    home: Path
    storage: str
    blocked_plugins: frozenset[str]

    @property
    def environments(self) -> Path:
        return self.home / "envs"

    @property
    def work(self) -> Path:
        """Work folders of running attempts; an attempt removes its own."""
        return self.home / "work"


def load_settings() -> Settings:
    home = Path(os.environ.get("EAGLERAY_HOME") or Path.home() / ".eagleray").expanduser().absolute()
    blocked = os.environ.get("EAGLERAY_BLOCKED_PLUGINS", "")
    return Settings(
        home=home,
        storage=os.environ.get("EAGLERAY_STORAGE") or str(home / "storage"),
        blocked_plugins=frozenset(name.strip() for name in blocked.split(",") if name.strip()),
    )
