"""A folder as the store of several nodes must be one folder: a mark in it, made by the driver, shows whether it is."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from eagleray.contract.errors import ClusterError, StorageError
from eagleray.execution.cluster import Cluster
from eagleray.storage.local import LocalStore
from eagleray.storage.opening import open_store
from eagleray.storage.store import AlreadyExistsError, NotFoundError, Store

KEY = "store.id"
TIMEOUT_S = 120.0


def store_id(store: Store) -> str | None:
    """What the store's mark says, made where there is none; None where the store is no folder."""
    if not isinstance(store, LocalStore):
        return None
    try:
        store.put_bytes(KEY, secrets.token_hex(16).encode(), if_absent=True)
    except AlreadyExistsError:
        pass
    return store.get_bytes(KEY).decode(errors="replace")


def require_shared(store: Store, expected: str | None) -> None:
    """Refuse to go on where `store`, opened here, is not the driver's.

    Raises:
        ClusterError: it is a folder of this node alone.
    """
    if expected is not None and not _sees(store.location, expected):
        raise _not_shared(store.location, ray.util.get_node_ip_address())


def check_nodes(cluster: Cluster, store: Store, resources_per_worker: Mapping[str, float]) -> None:
    """Ask every node that may get a worker whether it sees the store's folder.

    Raises:
        ClusterError: one does not; what it would save there, nobody would find.
    """
    expected = store_id(store)
    nodes = [
        node
        for node in cluster.nodes()
        if node.node_id != cluster.driver_node_id
        and all(node.resources.get(name, 0.0) >= amount for name, amount in resources_per_worker.items())
    ]
    if expected is None or not nodes:
        return
    answers = {
        node.address: _sees_there.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False)
        ).remote(store.location, expected)
        for node in nodes
    }
    for address, answer in answers.items():
        try:
            seen = ray.get(answer, timeout=TIMEOUT_S)
        except Exception as error:
            raise ClusterError(
                f"Node {address} did not say whether it sees {store.location}: {' '.join(str(error).split())[:300]}",
                "Try `ray status`; the node may have gone.",
            ) from error
        if not seen:
            raise _not_shared(store.location, address)


@ray.remote(num_cpus=0, max_retries=0)
def _sees_there(location: str, expected: str) -> bool:
    return _sees(location, expected)


def _sees(location: str, expected: str) -> bool:
    try:
        return open_store(location).get_bytes(KEY).decode(errors="replace") == expected
    except (NotFoundError, StorageError):
        return False


def _not_shared(location: str, address: str) -> ClusterError:
    return ClusterError(
        f"The store {location} is a folder that node {address} does not share.",
        "Set EAGLERAY_STORAGE to s3://bucket/prefix, or to a folder that all nodes mount at the same path.",
    )
