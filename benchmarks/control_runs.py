"""A control plane over a simulated cluster, for the benchmarks of what is ours in it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eagleray.control.answering import answer_of
from eagleray.control.commands import Commands
from eagleray.control.database.opening import open_database
from eagleray.control.plane import ControlPlane
from eagleray.control.settings import ControlSettings
from eagleray.control.specs import CheckedSpec, described
from eagleray.jobs.spec import make_spec
from eagleray.storage.local import LocalStore
from eagleray.testing.cluster import SimulatedExecutor

SPEC: dict[str, Any] = {"framework": "echo", "model_name": "echo-linear", "dataset_path": "/data", "epochs": 10}
SETTLE_S = 5.0


def check(values: Mapping[str, Any]) -> CheckedSpec:
    return described(make_spec(values))


def open_plane(folder: Path, *, drivers: int, dispatch: bool = False) -> tuple[ControlPlane, SimulatedExecutor]:
    executor = SimulatedExecutor(cpus=100_000.0)
    plane = ControlPlane(
        open_database(f"sqlite:///{folder / 'eagleray.db'}", folder),
        executor,
        LocalStore(folder / "store"),
        check,
        settings=ControlSettings(max_drivers=drivers),
    )
    plane.start(dispatch=dispatch)
    return plane, executor


class SimulatedActor:
    """What the control plane's actor is, over a simulated cluster; `health` says how many runs it has started."""

    def __init__(self, folder: str, drivers: int) -> None:
        self._plane, self._executor = open_plane(Path(folder), drivers=drivers, dispatch=True)

    def call(self, method: str, arguments: Any, keywords: Any) -> dict[str, Any]:
        if method == "health":
            return {"value": {"started": len(self._executor.starts)}}
        return answer_of(self._plane, method, arguments, keywords)

    def shut_down(self) -> None:
        self._plane.close()


@contextmanager
def own_ray() -> Iterator[None]:
    """A Ray of this process's own, without dashboard; gone at the end."""
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        del os.environ[name]
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    import ray

    # Its workers import this file.
    runtime_env = {"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}}
    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, runtime_env=runtime_env)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def actor_of(folder: Path, drivers: int) -> Iterator[Commands]:
    """The control plane behind the actor's border, named and called as the real one is."""
    import ray

    from eagleray.control.remote import NAME, NAMESPACE, RemoteCommands, commands_of

    options: dict[str, Any] = {"name": NAME, "namespace": NAMESPACE, "max_concurrency": 100, "num_cpus": 0}
    actor = ray.remote(SimulatedActor).options(**options).remote(str(folder), drivers)
    ray.get(actor.__ray_ready__.remote())
    # Ray starts an idle process in place of the one that became the actor: seconds of a core that are not the actor's.
    time.sleep(SETTLE_S)
    try:
        yield commands_of(RemoteCommands())
    finally:
        ray.get(actor.shut_down.remote())
        ray.kill(actor)
