"""What a Ray cluster has, what of it is free, and what it can grow to. Imports nothing of Ray Train."""

from __future__ import annotations

from collections import Counter
from typing import Any

import ray
from ray._private.state import state as ray_state

_NODE_GROUP = "ray.io/node-group"


def autoscaling_maximum() -> dict[str, float]:
    """What an autoscaling cluster can grow to, by resource; empty where the cluster does not grow."""
    return ray_state.get_max_resources_from_cluster_config() or {}


def nodes_now() -> list[dict[str, Any]]:
    """Nodes that are up: `id`, `address`, `total` and `free` by resource name."""
    free = ray_state.available_resources_per_node()
    return [
        {
            "id": node["NodeID"],
            "address": node["NodeManagerAddress"],
            "total": dict(node["Resources"]),
            "free": dict(free.get(node["NodeID"], {})),
        }
        for node in ray.nodes()
        if node["Alive"]
    ]


def nodes_to_come() -> list[dict[str, Any]]:
    """What an autoscaler may still add, by node group: `total` of one node, and `more` of them (None: no limit)."""
    config = ray_state.get_cluster_config()
    if config is None:
        return []
    there = Counter(node.get("Labels", {}).get(_NODE_GROUP, "") for node in ray.nodes() if node["Alive"])
    return [
        {
            "total": {name: float(amount) for name, amount in group.resources.items()},
            "more": None if group.max_count < 0 else max(0, int(group.max_count) - there[group.name]),
        }
        for group in config.node_group_configs
    ]
