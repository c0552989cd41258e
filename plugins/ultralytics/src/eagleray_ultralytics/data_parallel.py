"""Ultralytics' trainers as one of several workers that the host has started, on any number of nodes.

Ultralytics would start processes of its own (`torch.distributed.run`) and counts devices of one machine. Here the
process group exists already, every worker has one device and its own work folder, and a worker may be a CPU.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics.utils import LOGGER, RANK
from ultralytics.utils.torch_utils import init_seeds, unwrap_model

from eagleray_ultralytics import group
from eagleray_ultralytics.shared_loss import SharedLoss
from eagleray_ultralytics.shares import Shares, share, share_validation


class _OnCpu(nn.parallel.DistributedDataParallel):
    """For a model on a CPU, which has no device number."""

    def __init__(self, module: nn.Module, device_ids: Any = None, **options: Any) -> None:
        super().__init__(module, **options)


@contextmanager
def _ddp_on(device: torch.device) -> Iterator[None]:
    patched: Any = nn.parallel
    original = patched.DistributedDataParallel
    if device.type == "cpu":
        patched.DistributedDataParallel = _OnCpu
    try:
        yield
    finally:
        patched.DistributedDataParallel = original


@contextmanager
def alone() -> Iterator[None]:
    """While inside, Ultralytics takes this process for the only one: it neither asks others nor waits for them."""
    with ExitStack() as stack:
        for module in [m for name, m in list(sys.modules.items()) if name.startswith("ultralytics.")]:
            for name in ("RANK", "LOCAL_RANK"):
                if isinstance(vars(module).get(name), int):
                    stack.callback(setattr, module, name, vars(module)[name])
                    setattr(module, name, -1)
        yield


def parallel(trainer_class: type[Any]) -> type[Any]:
    """`trainer_class` as one of several workers."""
    return type(f"Parallel{trainer_class.__name__}", (_Parallel, trainer_class), {})


class _Parallel:
    """Over a trainer of Ultralytics: what it does otherwise where there are several workers."""

    args: Any
    data: Any
    device: torch.device
    model: Any
    validator: Any
    test_loader: Any
    best: Any
    last: Path
    loss: torch.Tensor
    fitness: Any
    batch_size: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # As the only worker would: from the same seed, hence the same initial weights, and with folders of its own.
        with alone():
            super().__init__(*args, **kwargs)
        self.world_size = group.size()
        self.ddp = False
        if self.args.rect:
            LOGGER.warning("rect=True groups pictures by shape, which several workers cannot share: rect=False.")
            self.args.rect = False

    def _setup_ddp(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)

    def setup_model(self) -> Any:
        checkpoint = super().setup_model()  # type: ignore[misc]
        # From here on every worker draws its own augmentations.
        init_seeds(self.args.seed + 1 + RANK, deterministic=self.args.deterministic)
        return checkpoint

    def _setup_train(self) -> None:
        with _ddp_on(self.device):
            super()._setup_train()  # type: ignore[misc]
        model: Any = unwrap_model(self.model)
        # After the average model was made: that one validates, where workers see different numbers of batches.
        model.criterion = SharedLoss(model.init_criterion())

    def get_dataloader(self, dataset_path: Any, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        loader = super().get_dataloader(dataset_path, batch_size, rank, mode)  # type: ignore[misc]
        if mode == "train" and rank != -1:
            shares = Shares(len(loader.dataset), self.batch_size, RANK, self.world_size, self.args.seed)
            share(loader, shares)
        elif rank != -1:
            share_validation(loader, RANK, self.world_size)
        return loader

    def validate(self) -> Any:
        """Ultralytics divides the validation's losses by one worker's number of batches; here by that of all."""
        metrics, fitness = super().validate()  # type: ignore[misc]
        batches = group.total(len(self.test_loader))
        if metrics is not None:
            factor = self.world_size * len(self.test_loader) / batches
            metrics |= {name: value * factor for name, value in metrics.items() if name.startswith("val/")}
        return metrics, fitness

    def _handle_nan_recovery(self, epoch: int) -> bool:
        """Ultralytics asks the first worker only and reads `last.pt`, which no other has: here all decide as one."""
        lost = [
            value is not None and not bool(torch.isfinite(torch.as_tensor(value)))
            for value in (self.loss, self.fitness)
        ]
        if not any(group.any_of(*lost)):
            return False
        last = group.from_first(self.last.read_bytes() if RANK == 0 and self.last.exists() else None)
        if last is not None and RANK > 0:
            self.last.parent.mkdir(parents=True, exist_ok=True)
            self.last.write_bytes(last)
        self.loss = torch.full_like(self.loss, float("nan"))
        with alone():
            recovered: bool = super()._handle_nan_recovery(epoch)  # type: ignore[misc]
        return recovered

    def final_eval(self) -> None:
        """Only the first worker has the best model and all pictures; the others wait for it."""
        if RANK == 0:
            with alone():
                self.validator.dataloader = self.get_dataloader(
                    self.data[self.args.split], batch_size=self.batch_size * 2, rank=-1, mode="val"
                )
                try:
                    super().final_eval()  # type: ignore[misc]
                finally:
                    self.validator.dataloader.close()
        group.wait()
