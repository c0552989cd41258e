"""A plugin's environment on every node that may run the job, before any resource is asked for."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from eagleray.contract.errors import EaglerayError, EnvironmentBuildError
from eagleray.contract.framework import Environment
from eagleray.environments.builder import build
from eagleray.environments.lock import Lock, environment_name, read_lock
from eagleray.environments.ready import is_ready, python_of
from eagleray.execution.cluster import Cluster
from eagleray.execution.room import Gang
from eagleray.execution.runtime_env import SWITCH, is_switched_on
from eagleray.settings import load_settings

Say = Callable[[str], None]
# A node's new lines travel together, so that an install log is some hundred objects and not some thousand.
BATCH_S = 0.5


def build_here(lock: Lock, imports: Sequence[str], say: Say) -> str:
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


def prepare_nodes(cluster: Cluster, environment: Environment, gang: Gang, say: Say) -> str:
    """Build the environment wherever a worker may land; returns its interpreter's path, the same on all nodes.

    Raises:
        EnvironmentBuildError: it cannot be built on a node, or `EAGLERAY_HOME` differs between nodes.
    """
    # Read where the plugin is installed, and sent: a node may have just Ray and the core.
    lock = read_lock(environment.lock)
    nodes = [node for node in cluster.nodes() if gang.fits(node.resources) > 0]
    if not nodes:
        return _path_on_nodes_to_come(lock)
    streams = {
        node.address: _build_on_node.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False)
        ).remote(lock, environment.imports)
        for node in nodes
        if node.node_id != cluster.driver_node_id
    }
    pythons: dict[str, str] = {}
    if len(streams) < len(nodes):
        pythons[cluster.driver_address] = build_here(lock, environment.imports, say)
    pythons.update(_collect(streams, say))
    if len(set(pythons.values())) != 1:
        places = ", ".join(f"{address}: {python}" for address, python in sorted(pythons.items()))
        raise EnvironmentBuildError(
            f"The nodes keep the environment in different folders ({places}).",
            "Set EAGLERAY_HOME to the same path on every node.",
        )
    return next(iter(pythons.values()))


def _path_on_nodes_to_come(lock: Lock) -> str:
    """Where the environment will be. Nodes that join build it; the driver's own would be gigabytes for nothing."""
    if not is_switched_on():
        raise EnvironmentBuildError(
            "No node that is up can hold a worker, and nodes that join later would not build the environment.",
            f"Set {SWITCH} for every `ray start` and for this process (docs/cluster.md), or start a node first.",
        )
    return str(python_of(load_settings().environments / environment_name(lock)))


@ray.remote(num_cpus=0, max_retries=0, num_returns="streaming")
def _build_on_node(lock: Lock, imports: Sequence[str]) -> Iterator[dict[str, Any]]:
    yield from build_in_steps(lambda say: build_here(lock, imports, say))


def build_in_steps(build_it: Callable[[Say], str]) -> Iterator[dict[str, Any]]:
    """What `build_it` says, as `{"lines"}` while it works; last of all `{"python"}`, or `{"error"}`."""
    said: queue.SimpleQueue[str] = queue.SimpleQueue()
    end: dict[str, Any] = {}

    def target() -> None:
        try:
            end["python"] = build_it(said.put)
        except EaglerayError as error:
            end["error"] = str(error)
        except Exception as error:
            end["error"] = f"{type(error).__name__}: {error}"

    thread = threading.Thread(target=target, name="eagleray-build", daemon=True)
    thread.start()
    working = True
    while working:
        thread.join(BATCH_S)
        working = thread.is_alive()
        if lines := [said.get() for _ in range(said.qsize())]:
            yield {"lines": lines}
    yield end


def _collect(streams: Mapping[str, Any], say: Say) -> dict[str, str]:
    """The interpreter on each node, by address; what the nodes say meanwhile is passed on as it comes."""
    pythons: dict[str, str] = {}
    addresses = {stream: address for address, stream in streams.items()}
    deadline = time.monotonic() + load_settings().environment_timeout_s + 60
    while addresses:
        ready, _ = ray.wait(list(addresses), timeout=max(0.0, deadline - time.monotonic()))
        if not ready:
            late = ", ".join(sorted(addresses.values()))
            raise EnvironmentBuildError(f"The environment was not built in time on {late}.")
        for stream in ready:
            step = _next_step(stream, addresses[stream])
            for line in step.get("lines", ()):
                say(f"{addresses[stream]}: {line}")
            if "error" in step:
                raise EnvironmentBuildError(
                    f"Node {addresses[stream]} could not build the environment: {step['error']}"
                )
            if "python" in step:
                pythons[addresses.pop(stream)] = step["python"]
    return pythons


def _next_step(stream: Any, address: str) -> dict[str, Any]:
    try:
        step: dict[str, Any] = ray.get(next(stream))
    except Exception as error:
        raise EnvironmentBuildError(
            f"Node {address} could not build the environment: {' '.join(str(error).split())[:400]}"
        ) from error
    return step
