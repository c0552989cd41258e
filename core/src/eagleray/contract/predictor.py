"""Prediction with a trained model: one portable file in, plain data out.

Every task has one form of answer, whatever framework made the model, so a server or a test needs to know the task only.
Coordinates are pixels of the picture as it is shown, that is after its EXIF orientation, from its upper left corner.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from eagleray.contract.errors import DatasetError

if TYPE_CHECKING:
    from PIL.Image import Image

DEFAULT_THRESHOLD = 0.25


class RunLengths(TypedDict):
    """A mask as COCO's uncompressed run lengths: `size` is `[height, width]`, `counts` go down the columns, the first
    counts pixels outside the mask (maybe 0)."""

    size: list[int]
    counts: list[int]


class Classification(TypedDict):
    """`image-classification`: one for every class, best first; `score` 0..1 (they add up to 1 unless multi-label)."""

    label: str
    class_id: int
    score: float


class Detection(TypedDict):
    """`object-detection`, `zero-shot-object-detection`: best first; `box` is `[x1, y1, x2, y2]` in pixels."""

    label: str
    class_id: int
    score: float
    box: list[float]


class Segment(Detection):
    """`image-segmentation`, `mask-generation`: one for every object, or for every class that the picture shows."""

    mask: RunLengths


class Pose(Detection):
    """`keypoint-detection`: `keypoints` are `[x, y, score]`, in the dataset's order."""

    keypoints: list[list[float]]


class Text(TypedDict):
    """`image-text-to-text`: the answer to the prompt."""

    text: str


class Predictor(ABC):
    """Answers for pictures with one trained model; lives in the plugin's own environment, never in the driver.

    A subclass's `__init__` loads the model and sets `task` and `classes`, both from the portable file alone. It raises
    CheckpointError, with a sentence, where the file is not one of its framework. After that, `predict` may be called
    from any one thread at a time.
    """

    task: str
    classes: tuple[str, ...]

    def __init__(self, path: Path, device: str = "cpu") -> None:
        self.path = path
        self.device = device

    @abstractmethod
    def predict(
        self, image: Image | bytes | str | Path, *, threshold: float = DEFAULT_THRESHOLD, prompt: str = ""
    ) -> list[dict[str, Any]]:
        """The answers for one picture, in the form that this module names for the task.

        Args:
            image: a Pillow image, an encoded file's bytes, or a path; `open_image` takes them all.
            threshold: objects with a lower score are left out; classes and texts never are.
            prompt: the question to a vision-language model, or the classes to look for, separated by commas.

        Raises:
            DatasetError: it is not a picture.
        """

    def predict_many(
        self, images: Sequence[Image | bytes | str | Path], *, threshold: float = DEFAULT_THRESHOLD, prompt: str = ""
    ) -> list[list[dict[str, Any]]]:
        """The answers for several pictures, in their order; override it where the framework takes batches."""
        return [self.predict(image, threshold=threshold, prompt=prompt) for image in images]


def open_image(image: Image | bytes | str | Path) -> Image:
    """The picture as RGB, turned upright by its EXIF orientation.

    Raises:
        DatasetError: it cannot be read as a picture.
    """
    from PIL import Image as pillow  # noqa: PLC0415 - listing needs no Pillow
    from PIL import ImageOps  # noqa: PLC0415

    if isinstance(image, pillow.Image):
        return ImageOps.exif_transpose(image).convert("RGB")
    source = io.BytesIO(image) if isinstance(image, bytes) else image
    try:
        with pillow.open(source) as opened:
            return ImageOps.exif_transpose(opened).convert("RGB")
    except Exception as error:  # decoders raise whatever they like, and frameworks replace them by their own
        what = f"{len(image)} bytes" if isinstance(image, bytes) else f"'{image}'"
        raise DatasetError(f"{what} cannot be read as a picture: {error}.", "Send a JPEG, PNG, WebP or BMP.") from error


def run_lengths(mask: Any) -> RunLengths:
    """`mask`, an array `[height, width]` of truth values, as plain data."""
    import numpy as np  # noqa: PLC0415 - listing needs no numpy

    array = np.asarray(mask, dtype=bool)
    column = np.concatenate([[False], array.reshape(-1, order="F")])
    edges = np.flatnonzero(column[1:] != column[:-1])
    counts = np.diff(np.concatenate([[0], edges, [array.size]]))
    return {"size": [int(side) for side in array.shape], "counts": [int(count) for count in counts]}
