"""Ray's side of the one builder: environments on nodes that join after a job was prepared.

Switched on by `RAY_RUNTIME_ENV_PLUGINS='[{"class":"eagleray.execution.runtime_env.EnvironmentPlugin"}]'` in the
environment of every `ray start`, on nodes where the core is importable. With `trainer`, the only module that touches
Ray's private modules.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from typing import Any

from ray._private.runtime_env.plugin import RuntimeEnvPlugin

from eagleray.contract.framework import Environment
from eagleray.environments.lock import Lock, environment_name, parse_lock, read_lock

FIELD = "eagleray"
SWITCH = "RAY_RUNTIME_ENV_PLUGINS"


def is_switched_on() -> bool:
    """Whether the driver's node, and so by convention the cluster, has the plugin."""
    try:
        return any(
            str(entry.get("class", "")).startswith("eagleray.") for entry in json.loads(os.environ.get(SWITCH, "[]"))
        )
    except (ValueError, AttributeError):
        return False


def field_value(environment: Environment) -> dict[str, Any]:
    """What the field `eagleray` holds: the lock itself, since a node may have just Ray and the core."""
    lock = read_lock(environment.lock)
    return {"lock": lock.reference, "text": lock.normalised, "imports": list(environment.imports)}


class EnvironmentPlugin(RuntimeEnvPlugin):
    """Builds the environment of the lock in a runtime environment's field `eagleray` and starts workers in it."""

    name = FIELD
    priority = 5

    def get_uris(self, runtime_env: Any) -> list[str]:
        value = runtime_env.get(FIELD)
        return [f"eagleray://{environment_name(_lock(value))}"] if value else []

    async def create(self, uri: str | None, runtime_env: Any, context: Any, logger: logging.Logger) -> float:
        value = runtime_env.get(FIELD)
        if value:
            await asyncio.to_thread(self._python, value, logger)
        return 0

    def modify_context(self, uris: list[str], runtime_env: Any, context: Any, logger: logging.Logger) -> None:
        value = runtime_env.get(FIELD)
        if value:
            context.py_executable = self._python(value, logger)

    def delete_uri(self, uri: str, logger: logging.Logger) -> float:
        # Environments outlive Ray sessions; `eagleray envs prune` removes them.
        return 0

    def _python(self, value: Any, logger: logging.Logger) -> str:
        from eagleray.execution.prepare import build_here  # noqa: PLC0415 - it imports Ray's core, which takes seconds

        return build_here(_lock(value), value["imports"], logger.info)


def _lock(value: Any) -> Lock:
    return parse_lock(value["text"], value["lock"])
