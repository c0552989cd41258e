"""Answers with a trained detector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torchvision.transforms.functional import pil_to_tensor

from eagleray.contract import CheckpointError, Predictor, open_image
from eagleray.contract.predictor import DEFAULT_THRESHOLD
from eagleray_torchvision import model


class TorchvisionPredictor(Predictor):
    """Says which objects a picture shows, and where."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        super().__init__(path, device)
        file = model.read(path, device)
        try:
            self.task, self.classes = file["task"], tuple(file["classes"])
            self._model = model.build(file["name"], len(self.classes), file["image_size"]).to(device)
            self._model.load_state_dict(file["model"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"'{path}' is no model of torchvision: {error}.", "Name a job's best.pt.") from error
        self._model.eval()

    @torch.inference_mode()
    def predict(
        self, image: Image | bytes | str | Path, *, threshold: float = DEFAULT_THRESHOLD, prompt: str = ""
    ) -> list[dict[str, Any]]:
        picture = pil_to_tensor(open_image(image)).float().to(self.device) / 255
        found = {name: value.tolist() for name, value in self._model([picture])[0].items()}
        answers = [
            {"label": self.classes[label - 1], "class_id": label - 1, "score": score, "box": box}
            for label, score, box in zip(found["labels"], found["scores"], found["boxes"], strict=True)
            if score >= threshold
        ]
        return sorted(answers, key=lambda answer: -answer["score"])
