"""What earlier attempts saved and the store does not have yet, sent from the nodes where it lies."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from eagleray.contract.errors import StorageError
from eagleray.execution.cluster import Cluster
from eagleray.settings import Settings, load_settings
from eagleray.storage.opening import open_store, store_access
from eagleray.storage.pending import Finished, finish_pending
from eagleray.storage.store import Store

NODE_TIMEOUT_S = 600.0
STORE_TIMEOUT_S = 900.0
POLL_S = 5.0


def settle(cluster: Cluster, store: Store, settings: Settings, job_id: int, say: Callable[[str], None]) -> None:
    """Before it is decided where a job continues: bring what its attempts left on any node into the store.

    An outage of the store is waited for, a quarter of an hour at most: an attempt that failed in one must not take the
    job with it.

    Raises:
        StorageError: the store is still away.
    """
    _wait_for(store, say)
    _tell(finish_pending(store, settings.pending, job_id=job_id), "this node", say)
    remote = {
        node.address: _finish_there.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False)
        ).remote(store.location, store_access(store), job_id)
        for node in cluster.nodes()
        if node.node_id != cluster.driver_node_id
    }
    for address, reference in remote.items():
        try:
            _tell(ray.get(reference, timeout=NODE_TIMEOUT_S), address, say)
        except Exception as error:
            # The node is gone, perhaps: then so is what lay there, and the job goes on from what the store has.
            say(f"Node {address} could not be asked for checkpoints that are not stored yet: {type(error).__name__}.")


@ray.remote(num_cpus=0, max_retries=0)
def _finish_there(location: str, access: dict[str, Any] | None, job_id: int) -> Finished:
    return finish_pending(open_store(location, access), load_settings().pending, job_id=job_id)


def _tell(done: Finished, where: str, say: Callable[[str], None]) -> None:
    for item in done.sent:
        say(f"{str(item).capitalize()} was still on {where}; it is in the store now.")
    if done.left:
        say(f"{len(done.left)} uploads of {where} wait still: {done.reason}")


def _wait_for(store: Store, say: Callable[[str], None]) -> None:
    deadline = time.monotonic() + STORE_TIMEOUT_S
    waited = False
    while True:
        try:
            store.check()
            return
        except StorageError as error:
            if time.monotonic() > deadline:
                raise
            if not waited:
                say(f"The next attempt waits for the store: {error}")
            waited = True
            time.sleep(POLL_S)
