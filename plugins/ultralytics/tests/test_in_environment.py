"""Runs the tests of `in_environment/` with the Python of the plugin's own environment, which has no pytest."""

from __future__ import annotations

from pathlib import Path

import pytest

from eagleray.testing.environment import python_of, run_pytest
from eagleray_ultralytics.framework import describe


@pytest.mark.framework
@pytest.mark.timeout(1800)
def test_the_adapter_in_its_own_environment(tmp_path: Path) -> None:
    run_pytest(python_of(describe("0")), Path(__file__).parent / "in_environment", ["eagleray_ultralytics"], tmp_path)
