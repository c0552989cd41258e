"""Whether a job's workers fit a cluster, as plain arithmetic on what its nodes have: needs no cluster itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eagleray.contract.errors import ClusterError

_ACCELERATOR = "accelerator_type:"
# What Ray asks of a node that shall have an accelerator type.
_SHARE = 0.001


@dataclass(frozen=True)
class Gang:
    """The workers of a job.

    Attributes:
        num_workers: the fewest that it starts with.
        resources: of each worker.
    """

    num_workers: int
    resources: Mapping[str, float]
    accelerator_type: str | None = None

    @property
    def wanted(self) -> dict[str, float]:
        """What a node must have for one worker, by Ray's names."""
        accelerator = {f"{_ACCELERATOR}{self.accelerator_type}": _SHARE} if self.accelerator_type else {}
        return {**self.resources, **accelerator}

    def fits(self, available: Mapping[str, float]) -> int:
        """How many of its workers go into `available`."""
        return min(math.floor(available.get(name, 0.0) / amount) for name, amount in self.wanted.items() if amount)

    def __str__(self) -> str:
        each = ", ".join(f"{amount:g} {name}" for name, amount in self.resources.items())
        kind = f" of type {self.accelerator_type}" if self.accelerator_type else ""
        return f"{self.num_workers} worker(s) with {each}{kind} each"


def check(gang: Gang, nodes: Sequence[Mapping[str, float]], to_come: Sequence[Mapping[str, Any]]) -> None:
    """Refuse what a cluster can never hold.

    Args:
        nodes: resources of those that are up.
        to_come: what an autoscaler may add, as `resources.nodes_to_come` says it.

    Raises:
        ClusterError: says how many workers would fit, or which accelerators there are.
    """
    groups = [group for group in to_come if group["more"] != 0]
    _check_accelerator(gang, [*nodes, *(group["total"] for group in to_come)], groups)
    room = capacity(gang, nodes, groups)
    if room >= gang.num_workers:
        return
    grown = ", grown to its node types' maximum" if groups else ""
    raise ClusterError(
        f"{gang} are more than this cluster can ever have{grown}: {room:g} would fit.",
        f"Ask for at most {room:g} with --workers, or for less per worker."
        if room
        else "Ask for less per worker (--cpus-per-worker, --gpus-per-worker), or use a larger cluster.",
    )


def capacity(gang: Gang, nodes: Iterable[Mapping[str, float]], groups: Iterable[Mapping[str, Any]]) -> float:
    """How many workers fit, those on nodes that may still come included; infinite where that has no limit."""
    room = float(sum(gang.fits(node) for node in nodes))
    for group in groups:
        each = _fits_one(gang, group["total"])
        if each:
            room += math.inf if group["more"] is None else each * group["more"]
    return room


def _fits_one(gang: Gang, total: Mapping[str, float]) -> float:
    if not total:
        return math.inf  # a node type that does not say what it has
    if not _types(total):
        # Not every provider names the accelerators of a node type; Ray finds them on the node.
        return Gang(gang.num_workers, gang.resources).fits(total)
    return gang.fits(total)


def _check_accelerator(gang: Gang, totals: Sequence[Mapping[str, float]], groups: Sequence[Mapping[str, Any]]) -> None:
    wanted = gang.accelerator_type
    there = sorted({name for total in totals for name in _types(total)})
    unnamed = any(not _types(group["total"]) and (not group["total"] or group["total"].get("GPU")) for group in groups)
    if wanted is None or wanted in there or unnamed:
        return
    raise ClusterError(
        f"No node of this cluster has an accelerator of type '{wanted}'.",
        f"It has: {', '.join(there)}." if there else "It has none; leave --accelerator-type out.",
    )


def _types(total: Mapping[str, float]) -> list[str]:
    return [name.removeprefix(_ACCELERATOR) for name in total if name.startswith(_ACCELERATOR)]
