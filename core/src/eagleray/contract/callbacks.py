"""Callbacks around a run. They run in the driver; none can end a run by raising."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RunInfo:
    """What a callback is told of the job: its id, attempt (1-based) and spec as plain data."""

    job_id: int
    attempt: int
    spec: Mapping[str, Any]
    location: str


class TrainingCallbacks:
    """Override what you need. An exception is logged with its traceback and training goes on."""

    def on_train_begin(self, run: RunInfo) -> None:
        """Before the workers are asked for, once an attempt."""

    def on_epoch_end(self, run: RunInfo, epoch: int, metrics: Mapping[str, float]) -> None:
        """After every worker has reported `epoch` (1-based)."""

    def on_train_end(self, run: RunInfo, phase: str, metrics: Mapping[str, float]) -> None:
        """After the job has reached its last phase: `completed`, `failed` or `cancelled`."""
