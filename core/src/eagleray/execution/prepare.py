"""A plugin's environment on every node that may run the job, before any resource is asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from eagleray.contract.errors import EnvironmentBuildError
from eagleray.contract.framework import Environment
from eagleray.environments.builder import build
from eagleray.environments.lock import Lock, read_lock
from eagleray.environments.ready import is_ready
from eagleray.execution.cluster import Cluster, _workers_that_fit
from eagleray.settings import load_settings


def build_here(lock: Lock, imports: Sequence[str], say: Callable[[str], None]) -> str:
    """The interpreter of the lock's environment on this node, built if it is not there yet."""
    settings = load_settings()
    ready = is_ready(lock, root=settings.environments)
    if ready is None:
        ready = build(
            lock,
            root=settings.environments,
            imports=imports,
            timeout_s=settings.environment_timeout_s,
            say=say,
            # Importing takes longer than installing (docs/decisions.md), and the first worker imports it all anyway.
            check="find",
        )
    return str(ready.python)


@ray.remote(num_cpus=0, max_retries=0)
def _build_on_node(lock: Lock, imports: Sequence[str]) -> tuple[str, list[str]]:
    lines: list[str] = []
    try:
        return build_here(lock, imports, lines.append), lines
    except EnvironmentBuildError as error:
        return "", [*lines, str(error)]


def prepare_nodes(
    cluster: Cluster, environment: Environment, resources_per_worker: dict[str, float], say: Callable[[str], None]
) -> str:
    """Build the environment wherever a worker may land; returns its interpreter's path, the same on all nodes.

    Raises:
        EnvironmentBuildError: it cannot be built on a node, or `EAGLERAY_HOME` differs between nodes.
    """
    # Read where the plugin is installed, and sent: a node may have just Ray and the core.
    lock = read_lock(environment.lock)
    nodes = [node for node in cluster.nodes() if _workers_that_fit(node.resources, resources_per_worker) > 0]
    remote = {
        node.address: _build_on_node.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False)
        ).remote(lock, environment.imports)
        for node in nodes
        if node.node_id != cluster.driver_node_id
    }
    pythons: dict[str, str] = {}
    if any(node.node_id == cluster.driver_node_id for node in nodes) or not remote:
        pythons[cluster.driver_address] = build_here(lock, environment.imports, say)
    pythons.update(_collect(remote, say))
    if len(set(pythons.values())) != 1:
        places = ", ".join(f"{address}: {python}" for address, python in sorted(pythons.items()))
        raise EnvironmentBuildError(
            f"The nodes keep the environment in different folders ({places}).",
            "Set EAGLERAY_HOME to the same path on every node.",
        )
    return next(iter(pythons.values()))


def _collect(remote: dict[str, Any], say: Callable[[str], None]) -> dict[str, str]:
    pythons: dict[str, str] = {}
    deadline = time.monotonic() + load_settings().environment_timeout_s + 60
    for address, reference in remote.items():
        try:
            python, lines = ray.get(reference, timeout=max(1.0, deadline - time.monotonic()))
        except Exception as error:
            raise EnvironmentBuildError(
                f"Node {address} could not build the environment: {' '.join(str(error).split())[:400]}"
            ) from error
        for line in lines:
            say(f"{address}: {line}")
        if not python:
            raise EnvironmentBuildError(f"Node {address} could not build the environment: {lines[-1]}")
        pythons[address] = python
    return pythons
