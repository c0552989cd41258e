"""Ultralytics passes the suite that every plugin inherits."""

from __future__ import annotations

import pytest

from eagleray.testing.conformance import Case, TrainingConformance

# One optimizer step every batch, so that no gradient is left over between two epochs, and nothing drawn on pictures.
SMALL = {"imgsz": 64, "plots": False, "nbs": 4}
# Two workers see other pictures at other times, so neither may change what it sees.
PLAIN = {"sync_batch_norm": True, "nbs": 12, "warmup_epochs": 0.0, "optimizer": "SGD", "lr0": 0.001, "scale": 0.0}
PLAIN |= dict.fromkeys(("fliplr", "hsv_h", "hsv_s", "hsv_v"), 0.0)
BOXES = PLAIN | {"mosaic": 0.0, "translate": 0.0}
CLASSES = PLAIN | {"auto_augment": None, "erasing": 0.0}
# A validation's loss is a mean over batches, each divided by its own objects, and workers cut other batches. Precision
# of keypoints in four pictures by a model that has hardly learned hangs on ties between scores.
OTHERWISE = {"keypoint-detection": ("val/*", "metrics/*", "fitness")}
TASKS = {
    "object-detection": BOXES,
    "image-segmentation": BOXES,
    "keypoint-detection": BOXES,
    "image-classification": CLASSES,
}


@pytest.mark.framework
@pytest.mark.slow
@pytest.mark.timeout(1800)
class TestTraining(TrainingConformance):
    plugin = "eagleray_ultralytics"
    cases = tuple(
        Case(
            task,
            "yolo11n",
            config=SMALL,
            workers_config=plain,
            workers_untold=OTHERWISE.get(task, ("val/*",)),
            # One worker alone draws the order of pictures by Ultralytics' own sampler, several by one of theirs.
            workers_images=16,
            workers_batch_size=12,
            epochs=2,
        )
        for task, plain in TASKS.items()
    )
