"""The control plane as a Ray actor: named, detached, restarted by Ray, pinned to the head's disk."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from eagleray.contract.errors import ClusterError
from eagleray.control.commands import Commands
from eagleray.control.database.opening import open_database
from eagleray.control.plane import ControlPlane
from eagleray.control.ray_executor import RayJobExecutor
from eagleray.control.remote import CALL_S, NAME, NAMESPACE, START_S, RemoteCommands, commands_of, find, wait_until_up
from eagleray.control.settings import load_control_settings
from eagleray.control.specs import checking
from eagleray.control.starting import StartingPlane
from eagleray.plugins.host import discover
from eagleray.settings import load_settings
from eagleray.storage.opening import open_store

_HEAD = "node:__internal_head__"
# Per try; the old owner of the database may take longer to go, and is waited for by trying again.
_OWNER_S = 10.0


class ControlActor:
    """Args: places: `home` and `storage` of who started it; a database's address comes from the head's environment."""

    def __init__(self, places: dict[str, str]) -> None:
        logging.basicConfig(level=logging.INFO)
        address = ray.get_runtime_context().gcs_address
        self._plane = StartingPlane(functools.partial(_open, address, Path(places["home"]), places["storage"]))

    def call(self, method: str, arguments: Any, keywords: Any) -> dict[str, Any]:
        return self._plane.call(method, arguments, keywords)

    def shut_down(self) -> None:
        self._plane.close()


def _open(address: str, home: Path, storage: str) -> ControlPlane:
    settings = load_settings()
    engine = open_database(None, home)
    plane = None
    try:
        plane = ControlPlane(
            engine,
            RayJobExecutor(address, home, storage),
            open_store(storage),
            checking(functools.partial(discover, settings)),
            settings=load_control_settings(),
        )
        plane.start(owner_timeout_s=_OWNER_S)
    except BaseException:
        # Its lock and its connections would stand in the next try's way.
        if plane is not None:
            plane.close()
        engine.dispose()
        raise
    return plane


def connect(*, create: bool = True, timeout_s: float = CALL_S) -> Commands:
    """The control plane of the cluster that this process is connected to, started where there is none and `create`.

    With `create` it is also made again where it is lost later on, as a replica of the API outlives it.

    Raises:
        ControlPlaneAwayError: there is none, or it cannot start in time; says why.
        EaglerayError: why it cannot start at all, such as a damaged database.
        ClusterError: this process is connected to no cluster.
    """
    if not create:
        return find(timeout_s)
    if not ray.is_initialized():
        raise ClusterError("This process is connected to no Ray cluster.", "Call ray.init() first, or: eagleray up")
    commands = commands_of(RemoteCommands(timeout_s, create=_create))
    wait_until_up(commands, START_S)
    return commands


def _create() -> Any:
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
    return actor.remote({"home": str(settings.home), "storage": settings.storage})


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
