"""A control plane over a simulated cluster, for the benchmarks of what is ours in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eagleray.control.database.opening import open_database
from eagleray.control.plane import ControlPlane
from eagleray.control.settings import ControlSettings
from eagleray.control.specs import CheckedSpec, described
from eagleray.jobs.spec import make_spec
from eagleray.storage.local import LocalStore
from eagleray.testing.cluster import SimulatedExecutor

SPEC: dict[str, Any] = {"framework": "echo", "model_name": "echo-linear", "dataset_path": "/data", "epochs": 10}


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
