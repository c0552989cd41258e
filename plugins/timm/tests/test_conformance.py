"""The half of the contract's suite that trains, in the plugin's environment; the other is in `test_descriptor.py`."""

from __future__ import annotations

import pytest

from eagleray.testing.conformance import Case, TrainingConformance

TASK = "image-classification"
# Layer norm: a batch norm on CPUs knows its own worker's pictures only.
SMALL = Case(TASK, model="test_vit", config={"img_size": 32, "warmup_epochs": 0})
EVERYTHING = Case(
    TASK,
    model="test_efficientnet_ln",
    config={
        "img_size": 32,
        "workers": 1,
        "aa": "rand-m9-mstd0.5-inc1",
        "reprob": 0.5,
        "mixup": 0.2,
        "cutmix": 1.0,
        "drop": 0.2,
        "model_ema": True,
        "model_ema_decay": 0.9,
        "grad_accum_steps": 2,
        "clip_grad": 1.0,
        "layer_decay": 0.8,
        "opt": "lamb",
    },
    # What each rank draws for itself.
    workers_config={"mixup": 0.0, "cutmix": 0.0, "drop": 0.0, "reprob": 0.0},
)


@pytest.mark.framework
@pytest.mark.slow
@pytest.mark.timeout(1800)
class TestTraining(TrainingConformance):
    plugin = "eagleray_timm"
    cases = (SMALL, EVERYTHING)
