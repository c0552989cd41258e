"""The contract as tests, inherited from eagleray."""

from __future__ import annotations

import pytest

from eagleray.testing.conformance import Case, DescriptorConformance, TrainingConformance


class TestDescriptor(DescriptorConformance):
    plugin = "eagleray_torchvision"


@pytest.mark.framework
class TestTraining(TrainingConformance):
    plugin = "eagleray_torchvision"
    cases = (
        Case(
            "object-detection",
            "fasterrcnn_mobilenet_v3_large_320_fpn",
            config={"image_size": 64},
            epochs=2,
            tolerance=1e-4,
        ),
    )
