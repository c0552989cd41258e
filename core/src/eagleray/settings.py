"""Settings from the environment (`EAGLERAY_*`)."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from eagleray.contract.errors import ConfigError


@dataclass(frozen=True)
class Settings:
    """Where things are.

    Attributes:
        home: `EAGLERAY_HOME`, default `~/.eagleray`: environments, caches, work folders of this node.
        storage: `EAGLERAY_STORAGE`, a folder; default `{home}/storage`.
        blocked_plugins: `EAGLERAY_BLOCKED_PLUGINS`, comma-separated entry-point names that are not loaded.
        environment_timeout_s: `EAGLERAY_ENVIRONMENT_TIMEOUT_S`, seconds that building an environment may take.
    """

    home: Path
    storage: str
    blocked_plugins: frozenset[str]
    environment_timeout_s: float = 1800.0

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
        environment_timeout_s=_seconds("EAGLERAY_ENVIRONMENT_TIMEOUT_S", 1800.0),
    )


def _seconds(variable: str, default: float) -> float:
    """A duration from the environment.

    Raises:
        ConfigError: it is not a number above 0.
    """
    text = os.environ.get(variable, "").strip()
    try:
        value = float(text) if text else default
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ConfigError(f"{variable} is '{text}'.", f"It is a number of seconds above 0, such as {default:g}.")
    return value
