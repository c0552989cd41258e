"""Prediction with a trained YOLO model, in the contract's form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL.Image import Image
from ultralytics import YOLO
from ultralytics.utils import USER_CONFIG_DIR

from eagleray.contract import CheckpointError, Predictor, open_image, run_lengths
from eagleray.contract.predictor import DEFAULT_THRESHOLD
from eagleray_ultralytics.isolation import isolate, no_downloads
from eagleray_ultralytics.tasks import TASKS

Answer = dict[str, Any]


class UltralyticsPredictor(Predictor):
    """Answers with boxes, masks, keypoints or classes; `prompt` means nothing to these models."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        super().__init__(path, device)
        # The plugin's variables put the configuration below the work folder.
        isolate(Path(USER_CONFIG_DIR).parent.parent)
        names = {theirs: ours for ours, theirs in TASKS.items()}
        try:
            with no_downloads():
                self._model: Any = YOLO(path)
            self.task = names[str(self._model.task)]
            self.classes = tuple(str(self._model.names[number]) for number in sorted(self._model.names))
        except Exception as error:
            raise CheckpointError(f"'{path}' is not a model of Ultralytics: {error}", "Name a job's best.pt.") from None

    def predict(
        self, image: Image | bytes | str | Path, *, threshold: float = DEFAULT_THRESHOLD, prompt: str = ""
    ) -> list[Answer]:
        return self.predict_many([image], threshold=threshold, prompt=prompt)[0]

    def predict_many(
        self, images: Sequence[Image | bytes | str | Path], *, threshold: float = DEFAULT_THRESHOLD, prompt: str = ""
    ) -> list[list[Answer]]:
        pictures = [open_image(image) for image in images]
        results = self._model.predict(
            pictures,
            conf=threshold,
            device=self.device.removeprefix("cuda:"),
            batch=len(pictures),
            # Masks in the picture's own size.
            retina_masks=True,
            save=False,
            verbose=False,
        )
        return [self._answers(result.cpu()) for result in results]

    def _answers(self, result: Any) -> list[Answer]:
        if result.probs is not None:
            scores = result.probs.data.tolist()
            order = sorted(range(len(scores)), key=lambda number: -scores[number])
            return [self._named(number, scores[number]) for number in order]
        boxes = result.boxes
        answers = []
        for row in boxes.conf.argsort(descending=True, stable=True).tolist():
            answer = self._named(int(boxes.cls[row]), float(boxes.conf[row]))
            answer["box"] = boxes.xyxy[row].tolist()
            if result.masks is not None:
                answer["mask"] = run_lengths(result.masks.data[row].numpy() > 0.5)
            if result.keypoints is not None:
                # Two numbers a point where the dataset tells no visibility.
                answer["keypoints"] = [
                    [*point[:2], *(point[2:] or [1.0])] for point in result.keypoints.data[row].tolist()
                ]
            answers.append(answer)
        return answers

    def _named(self, number: int, score: float) -> Answer:
        return {"label": self.classes[number], "class_id": number, "score": min(1.0, score)}
