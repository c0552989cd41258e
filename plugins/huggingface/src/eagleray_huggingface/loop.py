"""What the host is told while the Trainer runs, and how it stops."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from eagleray.contract import Metric, TrainingContext
from eagleray_huggingface.group import Group

# Reading the loss waits for the GPU, so it is not done every step.
LOSS_EVERY_S = 1.0


class Stopped(Exception):
    """Leaves the Trainer between two batches, so that a half-trained epoch is neither saved nor reported."""


class HostCallback(TrainerCallback):
    """Reports epochs and steps, keeps the best figures, stops early and when asked.

    Attributes:
        best: the figures of the best epoch so far, with `epoch`; empty before the first.
        metrics: the last epoch's.
    """

    def __init__(
        self,
        context: TrainingContext,
        group: Group,
        metric: Metric,
        save: Callable[[Path], None],
        before_report: Callable[[], None],
    ) -> None:
        self.context, self.group, self.metric = context, group, metric
        self.save, self.before_report = save, before_report
        self.trainer: Any = None
        self.best: dict[str, float] = {}
        self.metrics: dict[str, float] = {}
        self._logged: dict[str, float] = {}
        self._read_loss_at = 0.0
        self._loss: dict[str, float] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        steps = state.max_steps // self.context.epochs
        epoch, step = divmod(state.global_step - 1, steps)
        self.context.progress(epoch + 1, step + 1, steps, self._running_loss(state))
        self._stop_if_asked()

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._stop_if_asked()

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        logs: Mapping[str, float] = kwargs["logs"]
        names = {"loss": "train/loss", "learning_rate": "lr", "grad_norm": "train/grad_norm"}
        self._logged = {new: float(logs[old]) for old, new in names.items() if old in logs}

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        metrics: Mapping[str, float] = kwargs["metrics"]
        # A worker that saw the stop left its share of the evaluation early: the figures mean nothing.
        self._stop_if_asked()
        epoch = round(state.epoch)
        self.metrics = {**self._logged, **metrics}
        value = self.metrics.get(self.metric.name)
        if value is not None and self.metric.improves(value, self.best.get(self.metric.name)):
            self.best = {**self.metrics, "epoch": float(epoch)}
        self.before_report()
        self.context.report(epoch, self.metrics, save=self.save)
        if epoch >= self.context.epochs:
            return
        patience = self.context.config.patience
        if patience and epoch - self.best.get("epoch", 0) >= patience:
            control.should_training_stop = True
            return
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        if self.group.any(self.context.should_stop):
            raise Stopped

    def _running_loss(self, state: Any) -> dict[str, float]:
        now = time.monotonic()
        if now - self._read_loss_at >= LOSS_EVERY_S:
            self._read_loss_at = now
            steps = max(1, state.global_step - self.trainer._globalstep_last_logged)
            self._loss = {"train/loss": float(self.trainer._tr_loss) / steps}
        return self._loss
