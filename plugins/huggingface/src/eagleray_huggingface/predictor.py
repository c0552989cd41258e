"""Answers from the portable file."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.nn.functional import interpolate
from transformers import AutoConfig, AutoImageProcessor, AutoProcessor

from eagleray.contract import CheckpointError
from eagleray.contract.predictor import DEFAULT_THRESHOLD, Predictor, open_image, run_lengths
from eagleray_huggingface import portable
from eagleray_huggingface.framework import CLASSIFICATION, DETECTION, TEXT
from eagleray_huggingface.models import INSTANCE, factory_of, load_state, with_lora
from eagleray_huggingface.remote_code import refuse_remote_code
from eagleray_huggingface.tasks.base import positions
from eagleray_huggingface.tasks.instances import found
from eagleray_huggingface.tasks.text import generate, written

MAX_NEW_TOKENS = 128


class HuggingFacePredictor(Predictor):
    """One model of any of the plugin's tasks."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        super().__init__(path, device)
        kept = portable.read(path, CheckpointError)
        self.task, self.classes, self.kind = kept["task"], tuple(kept["classes"]), kept["kind"]
        with TemporaryDirectory() as scratch:
            folder = Path(scratch)
            portable.unpack(kept, folder)
            refuse_remote_code(folder, path.name)
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            factory = AutoProcessor if self.task == TEXT else AutoImageProcessor
            self.processor = factory.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model = factory_of(self.task, config, path.name).from_config(config, dtype=torch.float32)
        if kept["lora"]:
            model = with_lora(model, kept["lora"])
        load_state(model, kept["state_dict"], exact=True)
        if kept["lora"]:
            model = model.merge_and_unload()
        self.model = model.to(device).eval()

    @torch.no_grad()
    def predict(self, image: Any, *, threshold: float = DEFAULT_THRESHOLD, prompt: str = "") -> list[dict[str, Any]]:
        """See `Predictor`; text answers `prompt`, or describes the picture."""
        picture = open_image(image)
        if self.task == TEXT:
            return [{"text": self._answer(picture, prompt)}]
        inputs = self.processor(images=picture, return_tensors="pt").to(self.device)
        side = max(inputs["pixel_values"].shape[-2:])
        outputs = self.model(pixel_values=inputs["pixel_values"], **positions(self.model, side))
        size = (picture.height, picture.width)
        if self.task == CLASSIFICATION:
            return self._classes(outputs)
        if self.task == DETECTION:
            return self._boxes(outputs, size, threshold)
        return self._objects(outputs, size, threshold) if self.kind == INSTANCE else self._painted(outputs, size)

    def _classes(self, outputs: Any) -> list[dict[str, Any]]:
        scores = outputs.logits[0].float().softmax(-1)
        return [self._named(int(number), float(scores[number])) for number in scores.argsort(descending=True)]

    def _named(self, class_id: int, score: float) -> dict[str, Any]:
        return {"label": self.classes[class_id], "class_id": class_id, "score": min(1.0, max(0.0, score))}

    def _boxes(self, outputs: Any, size: tuple[int, int], threshold: float) -> list[dict[str, Any]]:
        answer = self.processor.post_process_object_detection(outputs, threshold=threshold, target_sizes=[size])[0]
        limits = torch.tensor([size[1], size[0], size[1], size[0]])
        boxes = answer["boxes"].float().cpu().clamp(min=0).minimum(limits)
        answers = [
            self._named(int(label), float(score)) | {"box": box.tolist()}
            for label, score, box in zip(answer["labels"], answer["scores"], boxes, strict=True)
        ]
        return sorted(answers, key=lambda answer: -answer["score"])

    def _objects(self, outputs: Any, size: tuple[int, int], threshold: float) -> list[dict[str, Any]]:
        objects = found(outputs, 0, size)
        return [
            self._named(int(label), float(score)) | {"box": box_around(mask), "mask": run_lengths(mask.numpy())}
            for label, score, mask in zip(objects["labels"], objects["scores"], objects["masks"], strict=True)
            if float(score) >= threshold
        ]

    def _painted(self, outputs: Any, size: tuple[int, int]) -> list[dict[str, Any]]:
        """One answer for each class that the picture shows; its score is the mean over its pixels."""
        if hasattr(self.processor, "post_process_instance_segmentation"):
            logits = by_class(outputs)
        else:
            logits = outputs.logits.float().softmax(1)
        scores, painted = interpolate(logits, size=size, mode="bilinear", align_corners=False)[0].cpu().max(0)
        answers = []
        for class_id in range(len(self.classes)):
            mask = painted == class_id + 1
            if mask.any():
                shape = {"box": box_around(mask), "mask": run_lengths(mask.numpy())}
                answers.append(self._named(class_id, float(scores[mask].mean())) | shape)
        return sorted(answers, key=lambda answer: -answer["score"])

    def _answer(self, picture: Any, prompt: str) -> str:
        turns = (("user", prompt or "Describe the picture."),)
        return generate(
            self.model, self.processor, picture, written(self.processor, turns, answer=False), MAX_NEW_TOKENS
        )


def by_class(outputs: Any) -> torch.Tensor:
    """`[1, classes, h, w]`: how likely each pixel is of a class, from queries and their masks; 0..1."""
    classes = outputs.class_queries_logits.float().softmax(-1)[..., :-1]
    together = torch.einsum("bqc,bqhw->bchw", classes, outputs.masks_queries_logits.float().sigmoid())
    return together / together.sum(1, keepdim=True).clamp(min=1e-6)


def box_around(mask: torch.Tensor) -> list[float]:
    """`x1, y1, x2, y2` in pixels of a mask `[H, W]` that is not empty."""
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    return [float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)]
