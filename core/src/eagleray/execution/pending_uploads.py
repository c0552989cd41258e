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
# How soon a wish to stop is heard.
STOP_POLL_S = 0.2


def settle(
    cluster: Cluster,
    store: Store,
    settings: Settings,
    job_id: int,
    say: Callable[[str], None],
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """Before it is decided where a job continues: bring what its attempts left on any node into the store.

    An outage of the store is waited for, a quarter of an hour at most: an attempt that failed in one must not take the
    job with it.

    Args:
        stopping: whether someone wants the job to end; then this returns soon, whatever is left.

    Raises:
        StorageError: the store is still away.
    """
    if not _wait_for(store, say, stopping):
        return
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
            done = _result(reference, stopping)
            if done is None:
                return
            _tell(done, address, say)
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


def _result(reference: Any, stopping: Callable[[], bool]) -> Finished | None:
    """None: it is not waited for any longer, since the job shall stop."""
    deadline = time.monotonic() + NODE_TIMEOUT_S
    while not ray.wait([reference], timeout=STOP_POLL_S)[0] and time.monotonic() < deadline:
        if stopping():
            return None
    done: Finished = ray.get(reference, timeout=0)
    return done


def _wait_for(store: Store, say: Callable[[str], None], stopping: Callable[[], bool]) -> bool:
    """Whether the store is there; False where the job shall stop first."""
    deadline = time.monotonic() + STORE_TIMEOUT_S
    waited = False
    while True:
        try:
            store.check()
            return True
        except StorageError as error:
            if time.monotonic() > deadline:
                raise
            if not waited:
                say(f"The next attempt waits for the store: {error}")
            waited = True
            again = time.monotonic() + POLL_S
            while time.monotonic() < again:
                if stopping():
                    return False
                time.sleep(min(STOP_POLL_S, POLL_S))
