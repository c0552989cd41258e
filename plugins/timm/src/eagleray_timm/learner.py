"""A model in training: one update after another, in the way of timm's train script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from timm.layers import convert_sync_batchnorm
from timm.models import model_parameters
from timm.utils import ModelEmaV3, NativeScaler, dispatch_clip_grad, distribute_bn
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from eagleray.contract import TrainingContext
from eagleray_timm.config import ClassificationConfig
from eagleray_timm.group import Group
from eagleray_timm.model import freeze
from eagleray_timm.recipe import (
    Loss,
    Mixing,
    learning_rate,
    make_optimizer,
    make_precision,
    make_schedule,
)


class Learner:
    """Model, optimizer, schedule, averaging and precision of one run.

    Attributes:
        model: timm's model itself; what is compiled or distributed wraps it and shares its weights.
        updates: optimizer updates so far, over all epochs.
    """

    def __init__(
        self,
        model: Any,
        loss: Loss,
        context: TrainingContext,
        group: Group,
        *,
        device: torch.device,
        batch_size: int,
        updates_per_epoch: int,
    ) -> None:
        config: ClassificationConfig = context.config
        self.config, self.group, self.device, self.loss = config, group, device, loss
        self.layout = torch.channels_last if config.channels_last else torch.contiguous_format
        self.precision = make_precision(config, device)
        if config.sync_bn and group.several:
            if device.type == "cuda":
                # Before freezing, which remembers modules: converting replaces them.
                model = convert_sync_batchnorm(model)
            else:
                context.warn("sync_bn acts on GPUs only; each worker keeps batch statistics of its own.")
        if group.several and config.loss_name == "twoway":
            context.warn(
                f"loss=twoway compares the pictures of a batch with one another: each of {context.world_size} workers "
                "compares its own part only, which teaches something else than one worker's whole batch."
            )
        self._frozen = freeze(model, config.freeze)
        self.model: Any = model.to(device, memory_format=self.layout)
        lr = learning_rate(config, context.learning_rate, batch_size * config.grad_accum_steps)
        self.optimizer = make_optimizer(self.model, config, lr)
        self.schedule = make_schedule(self.optimizer, config, context.epochs, updates_per_epoch)
        self._scaler: Any = NativeScaler(device=device.type) if self.precision.scaled else None
        self._mixing = Mixing(config, self.model.num_classes) if config.mixes else None
        self.ema: Any = (
            ModelEmaV3(self.model, decay=config.model_ema_decay, use_warmup=config.model_ema_warmup)
            if config.model_ema
            else None
        )
        self.compiled: Any = self._compiled()
        self.runner: Any = self._distributed()
        self.updates = 0

    @property
    def lr(self) -> float:
        """The largest learning rate of any parameter group."""
        return max(float(group["lr"]) for group in self.optimizer.param_groups)

    @property
    def evaluated(self) -> Any:
        """What is validated and saved: the average where there is one."""
        return self.compiled if self.ema is None else self.ema.module

    @property
    def saved(self) -> Any:
        """`evaluated`, never compiled."""
        return self.model if self.ema is None else self.ema.module

    def place(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures.contiguous(memory_format=self.layout) if self.config.channels_last else pictures

    def start_epoch(self, epoch: int) -> None:
        """Everything but what is frozen learns."""
        self.model.train()
        self.runner.train()
        for module in self._frozen:
            module.eval()
        if self._mixing:
            self._mixing.start(epoch)
        self.optimizer.zero_grad()

    def learn(self, pictures: torch.Tensor, targets: torch.Tensor, weight: float, *, update: bool) -> torch.Tensor:
        """Learn from one batch; returns its mean loss, on the device.

        Args:
            weight: the batch's part of the update: 1 where one batch of equal size on every worker is all of it.
            update: whether gradients are applied now, else they add up.
        """
        if self._mixing:
            pictures, targets = self._mixing(pictures, targets)
        if update or not self.group.several:
            return self._learn(pictures, targets, weight, update)
        with self.runner.no_sync():
            return self._learn(pictures, targets, weight, update)

    def _learn(self, pictures: torch.Tensor, targets: torch.Tensor, weight: float, update: bool) -> torch.Tensor:
        with self.precision.autocast():
            loss = self.loss(self.runner(self.place(pictures)), targets)
        weighted = loss if weight == 1.0 else loss * weight
        if self._scaler is not None:
            self._scaler(
                weighted,
                self.optimizer,
                self.config.clip_grad,
                self.config.clip_mode,
                self._clipped(),
                need_update=update,
            )
        else:
            weighted.backward()
        if update:
            self._update()
        return loss.detach()

    def _update(self) -> None:
        if self._scaler is None:
            if self.config.clip_grad is not None:
                dispatch_clip_grad(self._clipped(), self.config.clip_grad, mode=self.config.clip_mode)
            self.optimizer.step()
        self.optimizer.zero_grad()
        self.updates += 1
        if self.ema is not None:
            self.ema.update(self.model, step=self.updates)
        if self.schedule is not None:
            self.schedule.step_update(num_updates=self.updates)

    def end_epoch(self, epoch: int) -> None:
        """Even out the workers' batch-norm statistics and leave the epoch's weights ready to be evaluated."""
        if self.group.several and self.config.dist_bn != "off":
            for model in (self.model, *([] if self.ema is None else [self.ema.module])):
                distribute_bn(model, self.group.size, self.config.dist_bn == "reduce")
        self.model.eval()
        self.runner.eval()

    def next_epoch(self, epoch: int) -> None:
        """Move a schedule that goes by epochs on, after `epoch` (from 1)."""
        if self.schedule is not None:
            self.schedule.step(epoch)

    def state(self) -> dict[str, Any]:
        """Everything that the next update depends on beside `saved`'s weights; random numbers follow from the epoch."""
        return {
            "model": None if self.ema is None else self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if self._scaler is None else self._scaler.state_dict(),
            "updates": self.updates,
        }

    def load(self, saved: Mapping[str, Any], state: Mapping[str, Any], epoch: int) -> None:
        """Continue from the weights `saved` and `state`, taken after `epoch`. Raises what torch raises on a misfit."""
        self.model.load_state_dict(saved if state["model"] is None else state["model"])
        if self.ema is not None:
            # A job that begins to average now begins with the weights that it has.
            self.ema.module.load_state_dict(saved)
        self.optimizer.load_state_dict(state["optimizer"])
        if self._scaler is not None and state["scaler"]:
            self._scaler.load_state_dict(state["scaler"])
        self.updates = int(state["updates"])
        if self.schedule is not None:
            # timm's schedules are functions of the time alone; a longer run has another one.
            self.schedule.step_update(num_updates=self.updates)
            self.schedule.step(epoch)

    def _clipped(self) -> Sequence[nn.Parameter]:
        """Parameters whose gradients are bounded; adaptive clipping leaves the head out."""
        parameters: Sequence[nn.Parameter] = list(
            model_parameters(self.model, exclude_head=self.config.clip_mode == "agc")
        )
        return parameters

    def _compiled(self) -> Any:
        mode = self.config.compile
        if not mode:
            return self.model
        return torch.compile(self.model, mode=None if mode is True or mode == "default" else mode)

    def _distributed(self) -> Any:
        if not self.group.several:
            return self.compiled
        devices = [self.device] if self.device.type == "cuda" else None
        # Batch-norm statistics are evened out once an epoch, not sent with every batch.
        return DistributedDataParallel(self.compiled, device_ids=devices, broadcast_buffers=False)
