"""What the plugin says about timm, without importing it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files

from eagleray.contract import (
    Absent,
    Capabilities,
    Environment,
    Framework,
    Metric,
    ModelCard,
    ProcessGroup,
)

TASK = "image-classification"
FITNESS = "fitness"
ENV_VARS = {
    "HF_HOME": "{work_dir}/cache/hub",
    "TORCH_HOME": "{work_dir}/cache/torch",
    "MPLCONFIGDIR": "{work_dir}/cache/matplotlib",
    "TORCHINDUCTOR_CACHE_DIR": "{work_dir}/cache/inductor",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DO_NOT_TRACK": "1",
}


@dataclass(frozen=True)
class Architecture:
    """One row of `models.json`.

    Attributes:
        input_size: side of the square picture that the default weights were trained on, in pixels.
        tags: names of its pretrained weights, timm's default first; empty: timm has none.
    """

    name: str
    parameters: int
    input_size: int
    tags: tuple[str, ...]


def read_models() -> Iterator[Architecture]:
    """The architectures of `models.json`, ResNet and EfficientNet families first."""
    text = files("eagleray_timm").joinpath("models.json").read_text(encoding="utf-8")
    for name, parameters, input_size, tags in json.loads(text)["models"]:
        yield Architecture(name, parameters, input_size, tuple(tags))


def cards(architecture: Architecture) -> Iterator[ModelCard]:
    """The card of the architecture, which stands for its default weights, and one for each other pretrained tag."""
    name, tags = architecture.name, architecture.tags
    size = f"{architecture.input_size} pixels"
    known = f"; pretrained: {', '.join(tags)}" if tags else "; no pretrained weights"
    default = f"{name}.{tags[0]}" if tags else ""
    yield ModelCard(name, TASK, architecture.parameters, default, description=size + known)
    for tag in tags[1:]:
        yield ModelCard(f"{name}.{tag}", TASK, architecture.parameters, f"{name}.{tag}", description=size)


def describe(version: str) -> Framework:
    """The framework as the host lists it; `version` is the plugin's."""
    return Framework(
        name="timm",
        version=version,
        licence="Apache-2.0",
        description="timm (PyTorch Image Models): image classification",
        tasks=(TASK,),
        models=tuple(card for row in read_models() for card in cards(row)),
        configs={TASK: "eagleray_timm.config:ClassificationConfig"},
        adapter="eagleray_timm.adapter:TimmAdapter",
        predictor="eagleray_timm.predictor:TimmPredictor",
        environment=Environment(lock="eagleray_timm:locks/runtime.txt", imports=("timm",), env_vars=ENV_VARS),
        portable_file="model.pt",
        best_metrics={TASK: Metric(FITNESS)},
        dataset_formats=("imagefolder", "csv"),
        process_group=ProcessGroup.INIT,
        learning_rate_keys=("lr_base",),
        capabilities=Capabilities(
            auto_batch_size=Absent("timm measures no memory; name a batch size (--batch-size 64)."),
        ),
    )
