"""Prediction with the echo framework."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image

from eagleray.contract import CheckpointError, Predictor, open_image
from eagleray.contract.predictor import DEFAULT_THRESHOLD
from eagleray.contract.tasks import OBJECT_DETECTION
from eagleray.testing.echo_data import pixels_of
from eagleray.testing.echo_model import load_model, probabilities


class EchoPredictor(Predictor):
    """Says of which class a picture is; as an object, it fills the picture."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        super().__init__(path, device)
        try:
            self._parameters, facts = load_model(path)
            self.task, self.classes = str(facts["task"]), tuple(facts["classes"])
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise CheckpointError(f"'{path}' is not a model of echo: {error}.", "Name a job's best.pt.") from error

    def predict(
        self, image: Image | bytes | str | Path, *, threshold: float = DEFAULT_THRESHOLD, prompt: str = ""
    ) -> list[dict[str, Any]]:
        picture = open_image(image)
        scores = probabilities(self._parameters, pixels_of(picture)[np.newaxis])[0]
        order = np.argsort(-scores, kind="stable")
        found = [{"label": self.classes[i], "class_id": int(i), "score": float(scores[i])} for i in order]
        if self.task != OBJECT_DETECTION:
            return found
        box = [0.0, 0.0, float(picture.width), float(picture.height)]
        return [answer | {"box": box} for answer in found[:1] if answer["score"] >= threshold]
