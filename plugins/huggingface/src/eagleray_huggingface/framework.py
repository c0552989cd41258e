"""What the plugin says about Transformers, without importing it."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from eagleray.contract import (
    Absent,
    Capabilities,
    Environment,
    Framework,
    Metric,
    ModelCard,
    OpenModels,
    ProcessGroup,
)

CLASSIFICATION, DETECTION = "image-classification", "object-detection"
SEGMENTATION, TEXT = "image-segmentation", "image-text-to-text"
CONFIGS = {
    CLASSIFICATION: "ClassificationConfig",
    DETECTION: "DetectionConfig",
    SEGMENTATION: "SegmentationConfig",
    TEXT: "TextConfig",
}
# Fitness is mIoU where classes are painted and mask mAP50-95 where objects are told apart.
BEST_METRICS = {
    CLASSIFICATION: Metric("metrics/accuracy_top1"),
    DETECTION: Metric("metrics/mAP50-95"),
    SEGMENTATION: Metric("fitness"),
    TEXT: Metric("val/loss", mode="min"),
}
# The hub is asked once, by `weights.fetch`, and nowhere else: a training step must not depend on a network.
ENV_VARS = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_XET": "1",
    "HF_HOME": "{work_dir}/huggingface",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "DO_NOT_TRACK": "1",
}
OPEN_MODELS = OpenModels(
    pattern=r"[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}",
    note="fetched from the hub by its id unless the store has it",
)


def read_models() -> list[dict[str, Any]]:
    """Rows of `models.json`: name, task, parameters, and the architecture where it can be built without the hub."""
    text = files("eagleray_huggingface").joinpath("models.json").read_text(encoding="utf-8")
    rows: list[dict[str, Any]] = json.loads(text)["models"]
    return rows


def card(row: dict[str, Any]) -> ModelCard:
    """The model card of one row of `models.json`."""
    kind = row.get("config", {}).get("model_type", "")
    return ModelCard(
        name=row["name"],
        task=row["task"],
        parameters=row["parameters"],
        weights=row["name"],
        description=row.get("description", kind),
    )


def describe(version: str) -> Framework:
    """The framework as the host lists it; `version` is the plugin's."""
    return Framework(
        name="huggingface",
        version=version,
        licence="Apache-2.0",
        description="Transformers: classification, detection, segmentation and vision-language models",
        tasks=tuple(CONFIGS),
        models=tuple(card(row) for row in read_models()),
        configs={task: f"eagleray_huggingface.config:{name}" for task, name in CONFIGS.items()},
        adapter="eagleray_huggingface.adapter:HuggingFaceAdapter",
        predictor="eagleray_huggingface.predictor:HuggingFacePredictor",
        environment=Environment(
            lock="eagleray_huggingface:locks/runtime.txt",
            imports=("torch", "transformers", "accelerate"),
            env_vars=ENV_VARS,
        ),
        portable_file="model.pt",
        best_metrics=BEST_METRICS,
        dataset_formats=("coco", "dice", "imagefolder", "jsonl"),
        process_group=ProcessGroup.INIT,
        capabilities=Capabilities(
            auto_batch_size=Absent("Transformers' search for a batch size begins a run anew, and so cannot resume.")
        ),
        open_models=OPEN_MODELS,
    )
