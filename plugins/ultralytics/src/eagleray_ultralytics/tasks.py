"""Ultralytics' names of our tasks."""

from __future__ import annotations

TASKS = {
    "object-detection": "detect",
    "image-segmentation": "segment",
    "keypoint-detection": "pose",
    "image-classification": "classify",
}
