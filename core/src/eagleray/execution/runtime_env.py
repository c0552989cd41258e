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


class EnvironmentPlugin(RuntimeEnvPlugin):
    """Builds the environment named in a runtime environment's field `eagleray` and starts workers in it."""

    name = FIELD
    priority = 5

    def get_uris(self, runtime_env: Any) -> list[str]:
        value = runtime_env.get(FIELD)
        return [f"eagleray://{value['lock']}"] if value else []

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
        from eagleray.execution.prepare import build_here  # noqa: PLC0415 - the agent starts without the core's rooms

        return build_here(Environment(lock=value["lock"], imports=tuple(value["imports"])), logger.info)
