"""What torchvision's detectors are and can; plain data."""

from __future__ import annotations

from eagleray.contract import Absent, Capabilities, Environment, Framework, Metric, ModelCard

TASK = "object-detection"
# Parameters with COCO's 91 classes, from torchvision's table of models.
PARAMETERS = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": 19_386_354,
    "fasterrcnn_mobilenet_v3_large_fpn": 19_386_354,
    "fasterrcnn_resnet50_fpn_v2": 43_712_278,
    "retinanet_resnet50_fpn_v2": 38_198_935,
    "fcos_resnet50_fpn": 32_269_600,
}


def describe(version: str) -> Framework:
    """The framework as eagleray lists it."""
    return Framework(
        name="torchvision",
        version=version,
        licence="BSD-3-Clause",
        description="torchvision's detectors: Faster R-CNN, RetinaNet, FCOS",
        tasks=(TASK,),
        models=tuple(ModelCard(name, TASK, count, weights=name) for name, count in PARAMETERS.items()),
        configs={TASK: "eagleray_torchvision.config:Config"},
        adapter="eagleray_torchvision.adapter:TorchvisionAdapter",
        predictor="eagleray_torchvision.predictor:TorchvisionPredictor",
        environment=Environment(lock="eagleray_torchvision:locks/runtime.txt", imports=("torch", "torchvision")),
        portable_file="model.pt",
        best_metrics={TASK: Metric("map", "max")},
        dataset_formats=("dice",),
        capabilities=Capabilities(
            several_workers=Absent("every worker would draw its own proposals, so gradients would not be the batch's."),
            auto_batch_size=Absent("it does not measure memory."),
        ),
    )
