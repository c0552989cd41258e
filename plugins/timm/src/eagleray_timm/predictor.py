"""Answers for pictures with a portable model of this plugin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from eagleray.contract import Predictor, open_image
from eagleray_timm.loader import evaluation_transform
from eagleray_timm.model import load_portable, read_portable

if TYPE_CHECKING:
    from PIL.Image import Image

BATCH = 32


class TimmPredictor(Predictor):
    """Image classification: every class with its score, best first."""

    task = "image-classification"

    def __init__(self, path: Path, device: str = "cpu") -> None:
        super().__init__(path, device)
        content = read_portable(path)
        data = content["data_config"]
        self.classes = tuple(content["classes"])
        self._multi_label = bool(content["multi_label"])
        self._model = load_portable(content).to(device)
        self._transform = evaluation_transform(data)
        self._mode = "L" if data["input_size"][0] == 1 else "RGB"
        # The transform leaves pixels at 0..255.
        self._mean = torch.tensor(data["mean"], device=device).view(1, -1, 1, 1) * 255
        self._std = torch.tensor(data["std"], device=device).view(1, -1, 1, 1) * 255

    def predict(
        self, image: Image | bytes | str | Path, *, threshold: float = 0.0, prompt: str = ""
    ) -> list[dict[str, Any]]:
        return self.predict_many([image])[0]

    def predict_many(
        self, images: Sequence[Image | bytes | str | Path], *, threshold: float = 0.0, prompt: str = ""
    ) -> list[list[dict[str, Any]]]:
        answers: list[list[dict[str, Any]]] = []
        for start in range(0, len(images), BATCH):
            opened = [open_image(image).convert(self._mode) for image in images[start : start + BATCH]]
            pixels = torch.stack([self._transform(picture) for picture in opened]).to(self.device).float()
            with torch.inference_mode():
                logits = self._model((pixels - self._mean) / self._std).float()
            scores = logits.sigmoid() if self._multi_label else logits.softmax(-1)
            answers += [self._answer(row) for row in scores.cpu()]
        return answers

    def _answer(self, scores: torch.Tensor) -> list[dict[str, Any]]:
        """Every class, best first; `scores` is `[classes]`."""
        order = scores.argsort(descending=True, stable=True).tolist()
        return [{"label": self.classes[i], "class_id": i, "score": float(scores[i])} for i in order]
