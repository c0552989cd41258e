"""What differs from task to task: pictures into tensors, batches, and the figures of a validation."""

from __future__ import annotations

from typing import Any

from eagleray.contract import TrainingContext
from eagleray_huggingface.framework import CLASSIFICATION, DETECTION, TEXT
from eagleray_huggingface.tasks.base import Task
from eagleray_huggingface.tasks.classification import Classification
from eagleray_huggingface.tasks.detection import Detection
from eagleray_huggingface.tasks.instances import Instances
from eagleray_huggingface.tasks.painting import Painting
from eagleray_huggingface.tasks.text import Text

__all__ = ["Task", "task_of"]


def task_of(context: TrainingContext, kind: str, model: Any, processor: Any) -> Task:
    """The task's way with `model`; `kind` is `semantic` or `instance` for a segmentation, else empty."""
    if context.task == CLASSIFICATION:
        return Classification(context, model, processor)
    if context.task == DETECTION:
        return Detection(context, model, processor)
    if context.task == TEXT:
        return Text(context, model, processor)
    return (Instances if kind == "instance" else Painting)(context, model, processor)
