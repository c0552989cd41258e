"""Task names: Hugging Face's, with the prototype's short forms as aliases."""

from __future__ import annotations

from eagleray.contract.errors import unknown_name

OBJECT_DETECTION = "object-detection"
IMAGE_SEGMENTATION = "image-segmentation"
IMAGE_CLASSIFICATION = "image-classification"
KEYPOINT_DETECTION = "keypoint-detection"
ZERO_SHOT_OBJECT_DETECTION = "zero-shot-object-detection"
MASK_GENERATION = "mask-generation"
IMAGE_TEXT_TO_TEXT = "image-text-to-text"

TASKS = (
    OBJECT_DETECTION,
    IMAGE_SEGMENTATION,
    IMAGE_CLASSIFICATION,
    KEYPOINT_DETECTION,
    ZERO_SHOT_OBJECT_DETECTION,
    MASK_GENERATION,
    IMAGE_TEXT_TO_TEXT,
)
ALIASES = {
    "detect": OBJECT_DETECTION,
    "detection": OBJECT_DETECTION,
    "object_detection": OBJECT_DETECTION,
    "segment": IMAGE_SEGMENTATION,
    "segmentation": IMAGE_SEGMENTATION,
    "instance_segmentation": IMAGE_SEGMENTATION,
    "pose": KEYPOINT_DETECTION,
    "pose_estimation": KEYPOINT_DETECTION,
    "classify": IMAGE_CLASSIFICATION,
    "classification": IMAGE_CLASSIFICATION,
    "image_classification": IMAGE_CLASSIFICATION,
}


def normalise_task(task: str) -> str:
    """The canonical name of `task`.

    Raises:
        UnknownNameError: it is neither a task nor an alias of one.
    """
    name = task.strip().lower()
    name = ALIASES.get(name, name)
    if name not in TASKS:
        raise unknown_name("task", task, [*TASKS, *ALIASES])
    return name
