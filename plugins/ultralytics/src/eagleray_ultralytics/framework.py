"""What the plugin says about Ultralytics, without importing it."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from eagleray.contract import (
    Capabilities,
    Environment,
    Framework,
    Metric,
    ModelCard,
    ModelStatus,
    ProcessGroup,
)

CONFIGS = {
    "object-detection": "DetectionConfig",
    "image-segmentation": "SegmentationConfig",
    "keypoint-detection": "PoseConfig",
    "image-classification": "ClassificationConfig",
}
# Ultralytics' own choice of `best.pt`: one figure per task, so that ours and its agree. Fitness is box plus mask (or
# keypoint) mAP50-95, and the mean of top-1 and top-5; of detection it is mAP50-95 itself.
BEST_METRICS = {
    "object-detection": Metric("metrics/mAP50-95"),
    "image-segmentation": Metric("fitness"),
    "keypoint-detection": Metric("fitness"),
    "image-classification": Metric("fitness"),
}
ENV_VARS = {
    "YOLO_OFFLINE": "true",
    "YOLO_AUTOINSTALL": "false",
    "YOLO_CONFIG_DIR": "{work_dir}/config",
    "YOLO_VERBOSE": "true",
    "ULTRALYTICS_SAFE_LOAD": "true",
    "MPLCONFIGDIR": "{work_dir}/config/matplotlib",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
}
# Models whose names begin so take the class names as text, through CLIP's encoder.
OPEN_VOCABULARY, TEXT_ENCODER = "yolo_world", "ViT-B-32"
EXPORT_FORMATS = ("torchscript", "onnx", "openvino", "engine", "coreml", "saved_model", "litert", "ncnn", "mnn")


def read_models() -> list[dict[str, Any]]:
    """Rows of `models.json`: name, task, model file, weights, parameters and what else a card says."""
    text = files("eagleray_ultralytics").joinpath("models.json").read_text(encoding="utf-8")
    rows: list[dict[str, Any]] = json.loads(text)["models"]
    return rows


def card(row: dict[str, Any]) -> ModelCard:
    """The model card of one row of `models.json`."""
    return ModelCard(
        name=row["name"],
        task=row["task"],
        parameters=row["parameters"],
        weights=row["weights"],
        status=ModelStatus(row.get("status", "trainable")),
        reason=row.get("reason", ""),
        description=row.get("description", ""),
        further_weights=(TEXT_ENCODER,) if row["name"].startswith(OPEN_VOCABULARY) else (),
    )


def describe(version: str) -> Framework:
    """The framework as the host lists it; `version` is the plugin's."""
    return Framework(
        name="ultralytics",
        version=version,
        licence="AGPL-3.0",
        description="Ultralytics YOLO: detection, segmentation, pose and classification",
        tasks=tuple(CONFIGS),
        models=tuple(card(row) for row in read_models()),
        configs={task: f"eagleray_ultralytics.config:{name}" for task, name in CONFIGS.items()},
        adapter="eagleray_ultralytics.adapter:UltralyticsAdapter",
        environment=Environment(
            lock="eagleray_ultralytics:locks/runtime.txt", imports=("ultralytics",), env_vars=ENV_VARS
        ),
        portable_file="model.pt",
        best_metrics=BEST_METRICS,
        dataset_formats=("dice", "yolo", "imagefolder"),
        predictor="eagleray_ultralytics.predictor:UltralyticsPredictor",
        process_group=ProcessGroup.INIT,
        capabilities=Capabilities(export_formats=EXPORT_FORMATS),
        learning_rate_keys=("lr0",),
    )
