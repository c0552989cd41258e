"""The Ray cluster of a driver: the one it was pointed at, or a local one that it starts and leaves clean."""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before Ray is imported: it would otherwise force `uv run` onto every worker of a driver started by `uv run`.
os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
os.environ.setdefault("RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING", "0")
os.environ.setdefault("RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING", "0")
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
if "RAY_ADDRESS" not in os.environ and "RAY_AUTH_MODE" not in os.environ:
    # The token of the local cluster that this process will start: it lives in the environment of the cluster's
    # processes and in no file.
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)

import ray

from eagleray.contract.errors import ClusterError
from eagleray.execution.resources import autoscaling_maximum

IGNORED = ["**/__pycache__", "**/*.pyc"]


@dataclass(frozen=True)
class Node:
    node_id: str
    address: str
    resources: dict[str, float]


class Cluster:
    """A connected cluster."""

    def __init__(self, *, local: bool) -> None:
        self.local = local
        self.driver_node_id: str = ray.get_runtime_context().get_node_id()
        self.driver_address: str = ray.util.get_node_ip_address()

    def nodes(self) -> list[Node]:
        return [
            Node(node["NodeID"], node["NodeManagerAddress"], dict(node["Resources"]))
            for node in ray.nodes()
            if node["Alive"]
        ]

    def check_room(self, resources_per_worker: dict[str, float], num_workers: int) -> None:
        """Refuse what this cluster can never hold.

        Raises:
            ClusterError: says how many workers would fit.
        """
        if autoscaling_maximum():
            return  # Ray Train itself compares with the node types' maximum
        room = sum(_workers_that_fit(node.resources, resources_per_worker) for node in self.nodes())
        if room < num_workers:
            wanted = ", ".join(f"{amount:g} {name}" for name, amount in resources_per_worker.items())
            raise ClusterError(
                f"{num_workers} worker(s) with {wanted} each are more than this cluster can ever have: "
                f"{room} would fit.",
                f"Ask for at most {room} with --workers, or for less per worker."
                if room
                else "Ask for less per worker (--cpus-per-worker, --gpus-per-worker), or use a larger cluster.",
            )


def _workers_that_fit(available: dict[str, float], wanted: dict[str, float]) -> int:
    return min(math.floor(available.get(name, 0.0) / amount) for name, amount in wanted.items() if amount)


def package_folder(package: str) -> Path:
    """The folder of an importable package, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ClusterError(f"The package '{package}' cannot be found.", "Install it beside the core.")
    return Path(next(iter(spec.submodule_search_locations)))


@contextmanager
def connect(packages: Sequence[str]) -> Iterator[Cluster]:
    """Connect to `RAY_ADDRESS`, else start a local cluster and remove it with all its files at the end.

    Args:
        packages: import names whose code travels to every process of the job.

    Raises:
        ClusterError: the cluster cannot be reached or started.
    """
    runtime_env = {"py_modules": [str(package_folder(name)) for name in dict.fromkeys(packages)], "excludes": IGNORED}
    address = os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"runtime_env": runtime_env, "log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        with _joined(address, options) as cluster:
            yield cluster
    else:
        with _started(options) as cluster:
            yield cluster


@contextmanager
def _joined(address: str, options: dict[str, Any]) -> Iterator[Cluster]:
    try:
        ray.init(address=address, **options)
    except Exception as error:
        raise ClusterError(
            f"No Ray cluster answers at RAY_ADDRESS={address}: {' '.join(str(error).split())[:300]}",
            "Unset RAY_ADDRESS to train on this machine, or check the address, the token and that Ray's version is "
            f"{ray.__version__} there.",
        ) from error
    try:
        yield Cluster(local=False)
    finally:
        ray.shutdown()


def _sweep_folders() -> None:
    """Remove what local clusters left whose driver was killed; their names carry its process id."""
    for folder in Path(tempfile.gettempdir()).glob("eagleray-*-*"):
        owner = folder.name.split("-")[1]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists() and Path("/proc/self").exists():
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _started(options: dict[str, Any]) -> Iterator[Cluster]:
    # Unix socket paths end at 107 characters, so the folder stays short.
    _sweep_folders()
    folder = tempfile.mkdtemp(prefix=f"eagleray-{os.getpid()}-")
    try:
        try:
            ray.init(address="local", include_dashboard=False, _temp_dir=folder, **options)
        except Exception as error:
            raise ClusterError(
                f"A local Ray cluster could not be started: {' '.join(str(error).split())[:300]}",
                f"Its logs were in {folder}; free memory, disk in the temp folder, and try again.",
            ) from error
        yield Cluster(local=True)
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
