"""`torch.distributed` for a worker group, without torch in the driver.

Ray's own `TorchConfig` cannot even be unpickled where torch is missing (`ray/train/torch/__init__.py` imports it), and
drivers have no torch. The few steps it takes are taken here, on the workers only.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
from ray.train.backend import Backend, BackendConfig

from eagleray.contract.framework import ProcessGroup


@dataclass
class TorchGroupConfig(BackendConfig):
    """Policy of the plugin; `timeout_s` bounds the meeting of all workers and each collective."""

    policy: ProcessGroup = ProcessGroup.NONE
    timeout_s: int = 1800

    @property
    def backend_cls(self) -> type[Backend]:
        return TorchGroupBackend


class TorchGroupBackend(Backend):
    """Sets the variables of `torch.distributed` and, by policy, makes the process group."""

    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        assert isinstance(backend_config, TorchGroupConfig)
        if backend_config.policy is ProcessGroup.NONE:
            return
        address, port = worker_group.execute_single(0, _free_address)
        worker_group.execute(_set_variables, address, port)
        if backend_config.policy is not ProcessGroup.INIT or len(worker_group) == 1:
            return
        gpus = worker_group.get_resources_per_worker().get("GPU", 0)
        ray.get(
            [
                worker_group.execute_single_async(
                    rank, _make_group, "nccl" if gpus else "gloo", rank, len(worker_group), backend_config.timeout_s
                )
                for rank in range(len(worker_group))
            ]
        )


def _free_address() -> tuple[str, int]:
    address = ray.util.get_node_ip_address()
    with socket.socket() as probe:
        probe.bind((address, 0))
        return address, probe.getsockname()[1]


def _set_variables(address: str, port: int) -> None:
    context = ray.train.get_context()
    os.environ.update(
        MASTER_ADDR=address,
        MASTER_PORT=str(port),
        RANK=str(context.get_world_rank()),
        WORLD_SIZE=str(context.get_world_size()),
        LOCAL_RANK=str(context.get_local_rank()),
        LOCAL_WORLD_SIZE=str(context.get_local_world_size()),
        NODE_RANK=str(context.get_node_rank()),
    )


def _make_group(backend: str, rank: int, world_size: int, timeout_s: int) -> None:
    import torch.distributed as distributed  # noqa: PLC0415 - torch exists on the worker only

    distributed.init_process_group(
        backend, init_method="env://", rank=rank, world_size=world_size, timeout=timedelta(seconds=timeout_s)
    )
