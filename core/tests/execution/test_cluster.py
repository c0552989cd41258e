"""The cluster that a driver is pointed at: whether it is there, and what it lacks."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from eagleray.contract.errors import ClusterError
from eagleray.execution import cluster as module
from eagleray.execution.cluster import Cluster, Node, probe
from eagleray.execution.room import Gang


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
        return port


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nothing_listens_is_said_soon(scheme: str) -> None:
    address = f"{scheme}127.0.0.1:{free_port()}"
    started = time.monotonic()
    with pytest.raises(ClusterError, match=f"Nothing answers at RAY_ADDRESS={address}"):
        probe(address, timeout_s=0.3)
    assert time.monotonic() - started < 3


def test_a_cluster_that_comes_up_meanwhile_is_met() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        probe(f"127.0.0.1:{listener.getsockname()[1]}")


@pytest.mark.parametrize("address", ["auto", "local", "ray://head", "anyscale://x", "127.0.0.1"])
def test_an_address_without_a_port_is_left_to_ray(address: str) -> None:
    probe(address, timeout_s=0.1)


def test_nothing_starts_a_ray_by_itself_after_the_drivers_own_has_ended() -> None:
    assert os.environ["RAY_ENABLE_AUTO_CONNECT"] == "0"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Two nodes of two CPUs, one of them taken."""
    made = Cluster.__new__(Cluster)
    made.local = False
    nodes = [Node(name, f"10.0.0.{name}", {"CPU": 2.0}) for name in "12"]
    monkeypatch.setattr(made, "nodes", lambda: nodes)
    free = [{"id": "1", "free": {"CPU": 2.0}}, {"id": "2", "free": {}}]
    monkeypatch.setattr(module, "nodes_now", lambda: free)
    monkeypatch.setattr(module, "nodes_to_come", list)
    return made


def test_what_is_taken_now_is_waited_for_and_what_never_fits_is_refused(cluster: Cluster) -> None:
    gang = Gang(2, {"CPU": 2.0})
    cluster.check_room(gang)
    assert cluster.waits_for(gang) == "waits for room: 2 worker(s) with 2 CPU each, of which 1 fit now"
    assert cluster.waits_for(Gang(1, {"CPU": 2.0})) == ""
    with pytest.raises(ClusterError, match="2 would fit"):
        cluster.check_room(Gang(3, {"CPU": 2.0}))


def test_nodes_to_come_are_mentioned_while_they_are_waited_for(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_come: list[dict[str, Any]] = [{"total": {"CPU": 8.0}, "more": 2}]
    monkeypatch.setattr(module, "nodes_to_come", lambda: to_come)
    cluster.check_room(Gang(10, {"CPU": 2.0}))
    assert cluster.waits_for(Gang(10, {"CPU": 2.0})).endswith("the cluster is asked for more nodes")


def test_a_local_cluster_is_its_drivers_alone(cluster: Cluster) -> None:
    cluster.local = True
    assert cluster.waits_for(Gang(2, {"CPU": 2.0})) == ""


def test_a_gang_may_fit_without_a_node(cluster: Cluster) -> None:
    assert cluster.fits_without({"1"}, Gang(1, {"CPU": 2.0}))
    assert not cluster.fits_without({"1"}, Gang(2, {"CPU": 2.0}))


def test_a_joined_cluster_is_given_time_to_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", raising=False)
    monkeypatch.setenv("EAGLERAY_WORKER_START_TIMEOUT_S", "77")
    given: list[str] = []

    def init(**_: Any) -> None:
        given.append(os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"])
        raise ConnectionError("enough")

    monkeypatch.setattr("ray.init", init)
    with pytest.raises(ClusterError), module._joined("auto", {}):
        pass
    del os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"]
    assert given == ["77"]


@pytest.mark.parametrize(("message", "tries"), [("The current node timed out during startup.", 3), ("no disk", 1)])
def test_a_start_that_a_busy_machine_delays_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, message: str, tries: int
) -> None:
    asked: list[dict[str, Any]] = []

    def init(**options: Any) -> None:
        asked.append(options)
        raise RuntimeError(message)

    monkeypatch.setattr("ray.init", init)
    with pytest.raises(ClusterError, match="could not be started"):
        module._start(str(tmp_path), {})
    assert len(asked) == tries
