"""Callbacks around a run. They run in the driver; none can end a run by raising."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


def _unheard(text: str) -> None:
    pass


@dataclass(frozen=True)
class RunInfo:
    """What a callback is told of the job.

    Attributes:
        attempt: 1-based.
        spec: the job's description as plain data.
        location: the job's folder in the store, as a person types it.
        tracked_at: call it with the address of a page that shows this run; it stands in the job's record.
        warn: call it with a sentence that the job's owner should read.
    """

    job_id: int
    attempt: int
    spec: Mapping[str, Any]
    location: str
    tracked_at: Callable[[str], None] = _unheard
    warn: Callable[[str], None] = _unheard


class TrainingCallbacks:
    """Override what you need. An exception is logged with its traceback and training goes on."""

    def on_train_begin(self, run: RunInfo) -> None:
        """Before the workers are asked for, once an attempt."""

    def on_epoch_end(self, run: RunInfo, epoch: int, metrics: Mapping[str, float]) -> None:
        """After every worker has reported `epoch` (1-based)."""

    def on_train_end(self, run: RunInfo, phase: str, metrics: Mapping[str, float]) -> None:
        """After the job has reached its last phase: `completed`, `failed` or `cancelled`."""
