"""Whether gangs of workers fit on nodes: plain arithmetic, linear in nodes over a whole pass."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Resources = Mapping[str, float]
# Ray counts resources in ten-thousandths.
_EPSILON = 1e-5


@dataclass(frozen=True)
class Gang:
    """Workers that start together or not at all.

    Attributes:
        workers: how many at least.
        each: what one worker needs, by Ray's resource name, sorted; amounts above 0.
        avoid: ids of nodes that get none.
    """

    workers: int
    each: tuple[tuple[str, float], ...]
    avoid: frozenset[str] = frozenset()

    @property
    def gpus(self) -> float:
        return self.workers * dict(self.each).get("GPU", 0.0)

    @property
    def shape(self) -> tuple[tuple[tuple[str, float], ...], frozenset[str]]:
        """Gangs of one shape differ in the number of workers only."""
        return self.each, self.avoid

    def __str__(self) -> str:
        each = " and ".join(f"{amount:g} {name}" for name, amount in self.each)
        return f"{self.workers} worker{'s' if self.workers > 1 else ''} with {each or 'nothing'}"


@dataclass(frozen=True)
class Node:
    """A node that is up: all of its resources, and what of them is free now."""

    id: str
    total: Resources
    free: Resources


@dataclass(frozen=True)
class NodeType:
    """A kind of node that an autoscaler can add; `more` is how many still (None: no limit)."""

    total: Resources
    more: int | None


@dataclass(frozen=True)
class Capacity:
    nodes: tuple[Node, ...]
    types: tuple[NodeType, ...] = ()


def workers_on(free: Resources, each: Iterable[tuple[str, float]]) -> int:
    """How many workers fit into `free`."""
    return min(
        (math.floor((free.get(name, 0.0) + _EPSILON) / amount) for name, amount in each if amount > 0), default=1 << 30
    )


@dataclass
class _Slot:
    """Room that shrinks during a pass: a node, or one that can be added."""

    node_id: str | None
    total: Resources
    free: dict[str, float]

    def take(self, each: Iterable[tuple[str, float]], workers: int) -> None:
        for name, amount in each:
            self.free[name] = self.free.get(name, 0.0) - amount * workers


@dataclass
class Room:
    """The free room of a pass. It only shrinks, so a slot that was too small for a shape stays too small for it."""

    slots: list[_Slot]
    _cursors: dict[object, int] = field(default_factory=dict)
    _failed: dict[object, int] = field(default_factory=dict)

    @classmethod
    def of(cls, capacity: Capacity, most_new_nodes: int = 1000) -> Room:
        """Small nodes first, so that large ones stay whole; nodes that would have to be added last."""
        nodes = sorted(capacity.nodes, key=lambda node: (sum(node.total.values()), node.id))
        slots = [_Slot(node.id, node.total, dict(node.free)) for node in nodes]
        for kind in sorted(capacity.types, key=lambda kind: sum(kind.total.values())):
            count = most_new_nodes if kind.more is None else min(kind.more, most_new_nodes)
            slots += [_Slot(None, kind.total, dict(kind.total)) for _ in range(count)]
        return cls(slots)

    def place(self, gang: Gang, *, partly: bool = False) -> int:
        """Take room for all workers of `gang`, or nothing (`partly`: as many as fit); how many would have fit."""
        shape = gang.shape
        if self._failed.get(shape, 1 << 60) <= gang.workers and not partly:
            return self._failed[shape] - 1
        start = self._cursors.get(shape, 0)
        chosen: list[tuple[_Slot, int]] = []
        left = gang.workers
        for index in range(start, len(self.slots)):
            slot = self.slots[index]
            fit = 0 if slot.node_id in gang.avoid else workers_on(slot.free, gang.each)
            if fit == 0:
                if not chosen:
                    self._cursors[shape] = index + 1
                continue
            chosen.append((slot, min(fit, left)))
            left -= min(fit, left)
            if left == 0:
                break
        if left == 0 or partly:
            for slot, workers in chosen:
                slot.take(gang.each, workers)
        else:
            self._failed[shape] = gang.workers - left + 1
        return gang.workers - left

    def hold(self, gang: Gang, capacity: Capacity) -> tuple[str, ...] | None:
        """Keep the nodes for `gang` that are nearest to being free, those that can be added among them.

        Nodes with most room now come first, and room that is kept only grows, so the choice stays the same from pass
        to pass. One that is to be added is as good as an empty one: it will come back as that.

        Returns:
            The ids of the nodes that are there and were kept; None: nothing was.
        """
        free_now = {node.id: node.free for node in capacity.nodes}

        def rank(slot: _Slot) -> tuple[int, int, str]:
            free = slot.free if slot.node_id is None else free_now[slot.node_id]
            name = "\U0010ffff" if slot.node_id is None else slot.node_id
            return -workers_on(free, gang.each), -workers_on(slot.total, gang.each), name

        held, left = [], gang.workers
        for slot in sorted((slot for slot in self.slots if slot.node_id not in gang.avoid), key=rank):
            whole = workers_on(slot.total, gang.each)
            if left > 0 and whole:
                left -= whole
                held.append(slot)
        if left > 0:
            return None
        for slot in held:
            slot.free.clear()
        return tuple(slot.node_id for slot in held if slot.node_id is not None)
