"""The Ray cluster of a driver: the one it was pointed at, or a local one that it starts and leaves clean."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before Ray is imported: it would otherwise force `uv run` onto every worker of a driver started by `uv run`.
os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
# Else whatever still runs after `ray.shutdown()`, such as the thread of an attempt that was given up, starts a new Ray.
os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
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
from eagleray.execution import room
from eagleray.execution.resources import nodes_now, nodes_to_come
from eagleray.execution.room import Gang
from eagleray.execution.starting import start_again
from eagleray.settings import load_settings

IGNORED = ["**/__pycache__", "**/*.pyc"]
# How long a cluster that is named may take to answer at all.
PROBE_S = 5.0


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

    def check_room(self, gang: Gang) -> None:
        """Refuse what this cluster can never hold.

        Raises:
            ClusterError: says how many workers would fit, or which accelerators there are.
        """
        room.check(gang, [node.resources for node in self.nodes()], nodes_to_come())

    def fits_without(self, left_out: Container[str], gang: Gang) -> bool:
        """Whether `gang` can be placed on nodes whose ids are not in `left_out`, or that may still come."""
        nodes = [node.resources for node in self.nodes() if node.node_id not in left_out]
        return room.capacity(gang, nodes, nodes_to_come()) >= gang.num_workers

    def waits_for(self, gang: Gang) -> str:
        """What keeps `gang` from starting now; empty where there is room. A local cluster is its driver's alone."""
        if self.local:
            return ""
        fit = room.capacity(gang, [node["free"] for node in nodes_now()], [])
        if fit >= gang.num_workers:
            return ""
        asked = "; the cluster is asked for more nodes" if nodes_to_come() else ""
        return f"waits for room: {gang}, of which {fit:g} fit now{asked}"


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


def probe(address: str, timeout_s: float = PROBE_S) -> None:
    """Refuse an address where nothing listens: Ray itself would print warnings for minutes, and no sentence.

    Raises:
        ClusterError: nothing listens at its host and port. An address without them (`auto`) is left to Ray.
    """
    found = re.fullmatch(r"(?:ray://)?\[?([^/\[\]]+?)\]?:(\d{1,5})", address)
    if not found:
        return
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection((found[1], int(found[2])), timeout=timeout_s).close()
            return
        except (OSError, OverflowError) as error:
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"Nothing answers at RAY_ADDRESS={address} within {timeout_s:g} s: {error}.",
                    "Check that the cluster runs (`ray status` on its head) and that its port can be reached from "
                    "here, or unset RAY_ADDRESS to train on this machine.",
                ) from error
            time.sleep(0.2)


@contextmanager
def _joined(address: str, options: dict[str, Any]) -> Iterator[Cluster]:
    probe(address)
    # Ray Train's own minute is over before another job ends, or a cloud has started a machine.
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", f"{load_settings().worker_start_timeout_s:g}")
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


def _start(folder: str, options: dict[str, Any]) -> None:
    def begin() -> None:
        try:
            ray.init(address="local", include_dashboard=False, _temp_dir=folder, **options)
        except Exception:
            ray.shutdown()
            raise

    try:
        start_again(begin)
    except Exception as error:
        raise ClusterError(
            f"A local Ray cluster could not be started: {' '.join(str(error).split())[:300]}",
            f"Its logs were in {folder}; free memory, disk in the temp folder, and try again.",
        ) from error


@contextmanager
def _started(options: dict[str, Any]) -> Iterator[Cluster]:
    # Unix socket paths end at 107 characters, so the folder stays short.
    _sweep_folders()
    folder = tempfile.mkdtemp(prefix=f"eagleray-{os.getpid()}-")
    try:
        _start(folder, options)
        yield Cluster(local=True)
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
