"""The control plane as a Ray actor: named, detached, restarted by Ray, pinned to the head's disk."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from eagleray.control.commands import Commands
from eagleray.control.database.opening import open_database
from eagleray.control.errors import ControlPlaneAwayError
from eagleray.control.plane import ControlPlane
from eagleray.control.ray_executor import RayJobExecutor
from eagleray.control.remote import CALL_S, NAME, NAMESPACE, answer_of, find
from eagleray.control.settings import load_control_settings
from eagleray.control.specs import checking
from eagleray.plugins.host import discover
from eagleray.settings import load_settings
from eagleray.storage.opening import open_store

_HEAD = "node:__internal_head__"
_START_S = 60.0


class ControlActor:
    """Args: places: `home` and `storage` of who started it; a database's address comes from the head's environment."""

    def __init__(self, places: dict[str, str]) -> None:
        logging.basicConfig(level=logging.INFO)
        settings = load_settings()
        address = ray.get_runtime_context().gcs_address
        home = Path(places["home"])
        self._plane = ControlPlane(
            open_database(None, home),
            RayJobExecutor(address, home, places["storage"]),
            open_store(places["storage"]),
            checking(functools.partial(discover, settings)),
            settings=load_control_settings(),
        )
        self._plane.start()

    def call(self, method: str, arguments: Any, keywords: Any) -> dict[str, Any]:
        return answer_of(self._plane, method, arguments, keywords)

    def shut_down(self) -> None:
        self._plane.close()


def connect(*, create: bool = True, timeout_s: float = CALL_S) -> Commands:
    """The control plane of the cluster that this process is connected to, started where there is none and `create`.

    Raises:
        ControlPlaneAwayError: there is none, or it cannot start; says why.
        ClusterError: this process is connected to no cluster.
    """
    if create and ray.is_initialized():
        _create()
    return find(timeout_s)


def _create() -> None:
    settings = load_settings()
    actor = ray.remote(ControlActor).options(
        name=NAME,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        # Calls wait in threads of their own: long polls of many readers beside commands.
        max_concurrency=100,
        num_cpus=0,
        resources={_HEAD: 0.001},
    )
    handle = actor.remote({"home": str(settings.home), "storage": settings.storage})
    try:
        ray.get(handle.call.remote("health", (), {}), timeout=_START_S)
    except RayError as error:
        cause = getattr(error, "cause", None) or error
        raise ControlPlaneAwayError(
            f"The control plane could not start: {' '.join(str(cause).split())[-600:]}",
            "Its log is in Ray's session folder on the head.",
        ) from error


def shut_down() -> None:
    """End the control plane of this cluster; running jobs go on, and the next control plane adopts them."""
    try:
        handle = ray.get_actor(NAME, namespace=NAMESPACE)
    except ValueError:
        return
    try:
        ray.get(handle.shut_down.remote(), timeout=30)
    except RayError:
        pass
    ray.kill(handle, no_restart=True)
