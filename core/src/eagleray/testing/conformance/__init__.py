"""The contract as tests that every plugin inherits; each cites the numbered behaviour of docs/plugin-contract.md.

    from eagleray.testing.conformance import Case, DescriptorConformance, TrainingConformance

    class TestDescriptor(DescriptorConformance):
        plugin = "eagleray_example"

    class TestTraining(TrainingConformance):
        plugin = "eagleray_example"
        cases = (Case("image-classification", config={"image_size": 32}),)

The first class needs the plugin only. The second trains in the plugin's own Python, which needs no pytest. What the
framework's capabilities say is absent is skipped with that reason. A test of the suite can be replaced only by one that
is marked `xfail(reason=…)`.
"""

import pytest

pytest.register_assert_rewrite(
    *(f"eagleray.testing.conformance.{name}" for name in ("suite", "descriptor", "training", "workers")),
)

from eagleray.testing.conformance.case import Case  # noqa: E402 - after their asserts are to be rewritten
from eagleray.testing.conformance.descriptor import DescriptorConformance  # noqa: E402
from eagleray.testing.conformance.suite import Conformance  # noqa: E402
from eagleray.testing.conformance.training import TrainingConformance  # noqa: E402

__all__ = ["Case", "Conformance", "DescriptorConformance", "FrameworkConformance", "TrainingConformance"]


class FrameworkConformance(DescriptorConformance, TrainingConformance):
    """The whole suite in one class, for a framework that is installed beside the tests."""
